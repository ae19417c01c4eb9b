"""Objectives of regression: contract, closed forms, gradients in float64, and what each one's minimum is."""

import math

import pytest
import torch
from scipy import integrate, stats
from tests.conftest import shapes_unchecked
from torch import nn
from torch.nn import functional

from caveat.errors import DataError, ModelError, OptionError
from caveat.objectives import (
    FOR_PIXELS,
    FOR_REGRESSION,
    FORMS,
    beta_nll,
    evidential,
    heteroscedastic,
    mixture_density,
    pixel_cross_entropy,
    quantile,
)
from caveat.scores import distribution
from caveat.scores.evidential import aleatoric, epistemic, evidence
from caveat.scores.regression import log_variance

OUTPUTS = {
    "heteroscedastic": 2, "beta_nll": 2, "mixture_density": 6, "evidential": 4, "quantile": 3, "mean_squared_error": 1
}  # fmt: skip


def given(name: str, generator: torch.Generator, n: int = 7):
    outputs = torch.randn(n, OUTPUTS[name], generator=generator, dtype=torch.float64)
    return outputs, torch.randn(n, generator=generator, dtype=torch.float64)


def arrays(*tensors: torch.Tensor):
    return [tensor.numpy() for tensor in tensors]


def of(objective, outputs, labels, **options):
    return objective(nn.Identity(), outputs, labels, torch.Generator(), **options)


@pytest.mark.parametrize("name", FOR_REGRESSION)
def test_a_scalar_with_the_right_gradient(name: str, generator: torch.Generator):
    outputs, labels = given(name, generator)
    before = torch.get_rng_state()
    outputs.requires_grad_()
    if name == "beta_nll":  # its weight is held constant, so its gradient is not that of its value
        assert torch.autograd.gradcheck(lambda o: of(beta_nll, o, labels, beta=0.0), outputs)
    else:
        assert torch.autograd.gradcheck(lambda o: of(FOR_REGRESSION[name], o, labels), outputs)
    assert torch.equal(torch.get_rng_state(), before)
    order = torch.tensor([3, 1, 0, 2, 6, 5, 4])
    loss = of(FOR_REGRESSION[name], outputs, labels)
    assert of(FOR_REGRESSION[name], outputs[order], labels[order]).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("name", FOR_REGRESSION)
def test_what_does_not_fit_is_refused(name: str, generator: torch.Generator):
    outputs, labels = given(name, generator)
    with (
        shapes_unchecked(),
        pytest.raises(DataError, match=r"labels: expected real numbers of shape \(7,\), got torch.int64"),
    ):
        of(FOR_REGRESSION[name], outputs, labels.long())
    with pytest.raises(ModelError, match=r"model: expected .*outputs"):
        of(FOR_REGRESSION[name], outputs[:, :1] if OUTPUTS[name] > 1 else outputs.repeat(1, 2), labels)


@pytest.mark.parametrize("name", FOR_REGRESSION)
def test_extreme_outputs_give_finite_losses_and_gradients(name: str):
    outputs = torch.tensor([[1e3], [-1e3], [200.0], [-200.0]]).repeat(1, OUTPUTS[name]).requires_grad_()
    loss = of(FOR_REGRESSION[name], outputs, torch.tensor([0.0, 1.0, -2.0, 0.5]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()


def test_heteroscedastic_is_the_gaussian_likelihood(generator: torch.Generator):
    outputs, labels = given("heteroscedastic", generator, 50)
    mean, s = outputs.unbind(1)
    expected = -stats.norm.logpdf(*arrays(labels, mean, (0.5 * s).exp())).mean()
    assert of(heteroscedastic, outputs, labels).item() == pytest.approx(expected, rel=1e-4)  # the soft clamp
    ours = functional.gaussian_nll_loss(mean, labels, log_variance(s).exp(), full=True)
    assert of(heteroscedastic, outputs, labels).item() == pytest.approx(ours.item(), rel=1e-12)


def test_log_variance_is_kept_softly():
    raw = torch.linspace(-40, 40, 801, dtype=torch.float64)
    kept = log_variance(raw)
    assert bool((kept.diff() > 0).all())
    assert -14 < kept[0] < kept[-1] < 14
    inside = raw.abs() <= 10
    assert (kept - raw)[inside].abs().max() < 0.02


def test_beta_nll_weighs_but_does_not_follow_the_weight(generator: torch.Generator):
    outputs, labels = given("beta_nll", generator)
    assert of(beta_nll, outputs, labels, beta=0.0) == of(heteroscedastic, outputs, labels)
    leaf = outputs.clone().requires_grad_()
    of(beta_nll, leaf, labels, beta=1.0).backward()
    # beta 1: the mean's gradient is that of half the squared error
    assert torch.allclose(leaf.grad[:, 0], (outputs[:, 0] - labels) / 7, atol=1e-12)
    with pytest.raises(OptionError, match="beta"):
        of(beta_nll, outputs, labels, beta=1.5)


def test_mixture_density_is_a_mixture(generator: torch.Generator):
    outputs, labels = given("mixture_density", generator, 20)
    logits, mean, raw = outputs.chunk(3, dim=1)
    density = logits.softmax(1).numpy() * stats.norm.pdf(
        *arrays(labels[:, None], mean, (0.5 * log_variance(raw)).exp())
    )
    assert of(mixture_density, outputs, labels).item() == pytest.approx(-math.fsum(
        math.log(row.sum()) for row in density) / 20, rel=1e-10)  # fmt: skip
    one = torch.cat([torch.zeros(20, 1).double(), outputs[:, :2]], dim=1)
    assert of(mixture_density, one, labels).item() == pytest.approx(
        of(heteroscedastic, outputs[:, :2], labels).item(), rel=1e-12
    )


def test_evidential_is_a_student_t(generator: torch.Generator):
    outputs, labels = given("evidential", generator, 20)
    found = evidence(outputs)
    scale = (found.rate * (1 + found.precision) / (found.precision * found.shape)).sqrt()
    expected = -stats.t.logpdf(*arrays(labels, 2 * found.shape, found.mean, scale)).mean()
    assert of(evidential, outputs, labels, weight=0.0).item() == pytest.approx(expected, rel=1e-9)
    price = ((labels - found.mean).abs() * (2 * found.precision + found.shape)).mean()
    assert of(evidential, outputs, labels, weight=0.5).item() == pytest.approx(expected + 0.5 * price.item(), rel=1e-9)
    with pytest.raises(OptionError, match="weight"):
        of(evidential, outputs, labels, weight=-1.0)


def test_noise_and_doubt_of_evidence_are_moments_of_the_inverse_gamma(generator: torch.Generator):
    found = evidence(torch.randn(4, 4, generator=generator, dtype=torch.float64) + 1)
    for i in range(4):
        law = stats.invgamma(found.shape[i].item(), scale=found.rate[i].item())
        mean, _ = integrate.quad(lambda v, law=law: v * law.pdf(v), 0, float("inf"), limit=400)
        assert aleatoric(found)[i].item() == pytest.approx(mean, rel=1e-2)
        assert epistemic(found)[i].item() == pytest.approx(aleatoric(found)[i].item() / found.precision[i].item())


def test_pinball_is_least_at_the_quantile(generator: torch.Generator):
    labels = torch.randn(2000, generator=generator, dtype=torch.float64)
    grid = torch.linspace(-3, 3, 601, dtype=torch.float64)
    for level in (0.1, 0.5, 0.9):
        losses = torch.stack([of(quantile, q.expand(2000, 1), labels, levels=(level,)) for q in grid])
        assert grid[losses.argmin()].item() == pytest.approx(labels.quantile(level).item(), abs=0.02)
    for wrong in ((), (0.9, 0.1), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(OptionError, match="levels"):
            of(quantile, labels[:, None], labels, levels=wrong)


@pytest.mark.parametrize("name", FOR_PIXELS)
def test_pixels_without_a_label_do_not_count(name: str, generator: torch.Generator):
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    labels[0, :2] = 255
    kept = labels != 255
    flat = logits.movedim(1, -1)[kept]
    value = of(FOR_PIXELS[name], logits, labels)
    assert value.item() == pytest.approx(functional.cross_entropy(flat, labels[kept]).item(), rel=1e-12)
    changed = logits.clone()
    changed.movedim(1, -1)[~kept] += torch.randn(3, generator=generator)
    assert of(FOR_PIXELS[name], changed, labels).item() == pytest.approx(value.item(), rel=1e-12)


def test_weights_of_classes(generator: torch.Generator):
    logits = torch.randn(1, 2, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[[0, 0], [0, 1]]])
    each = -logits.log_softmax(1).gather(1, labels[:, None]).flatten()
    expected = (each * torch.tensor([1.0, 1.0, 1.0, 3.0])).sum() / 6
    assert of(pixel_cross_entropy, logits, labels, weights=(1.0, 3.0)).item() == pytest.approx(expected.item())
    with pytest.raises(DataError, match="at least one pixel"):
        of(pixel_cross_entropy, logits, torch.full((1, 2, 2), 255))
    with shapes_unchecked(), pytest.raises(DataError, match=r"expected maps \(n, h, w\)"):
        of(pixel_cross_entropy, logits, labels[:, :1])


@pytest.mark.parametrize("name", FOR_REGRESSION)
def test_the_outputs_have_the_form_that_audits_take_them_for(name: str, generator: torch.Generator):
    outputs, _ = given(name, generator)
    assert len(distribution.of(outputs, FORMS[name])) == len(outputs)
