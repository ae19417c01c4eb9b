"""Vector, matrix and Dirichlet calibration: known maps, the written-out objective, and what ruins
TorchUncertainty's."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.calibration import _regularised, temperature
from caveat.calibration.linear import dirichlet, matrix, vector
from caveat.errors import DataError, OptionError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=15)
FITS = pytest.mark.parametrize("fit", [vector, matrix, dirichlet])
INFINITE = (math.inf, math.inf)


def network(n: int, c: int, *, wrong: float = 0.0, margin: float = 8.0, seed: int = 0):
    """Logits of a good network, and labels of softmax(1.08 (A z + b)); A and b leave the identity by `wrong`."""
    fixed = torch.Generator().manual_seed(99)
    mixing = torch.eye(c).double() + wrong * torch.randn(c, c, generator=fixed, dtype=torch.float64)
    shift = 3 * wrong * torch.randn(c, generator=fixed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(n, c, generator=generator, dtype=torch.float64)
    logits[torch.arange(n), torch.randint(c, (n,), generator=generator)] += margin
    true = 1.08 * (logits @ mixing.T + shift)
    return logits, torch.multinomial(true.softmax(1), 1, generator=generator).squeeze(1)


def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits, labels).item()


def objective(fit: Callable[..., object], g, logits: torch.Tensor, labels: torch.Tensor, strengths) -> torch.Tensor:
    """As the docstring of each function writes it, in the stored parameters; differentiable by them."""
    t = temperature.fit(logits, labels).temperature
    if fit is vector:
        cost = strengths[0] * ((t * g.scale - 1) ** 2).sum()
    else:
        eye = torch.eye(len(g.shift)).double()
        off = (t * g.weight * (1 - eye)) ** 2
        on = (t * g.weight.diagonal() - 1) ** 2
        cost = strengths[0] * off.sum() + strengths[0] / 10 * on.sum()
    cost = cost + strengths[1] * (g.shift**2).sum()
    return torch.nn.functional.cross_entropy(g(logits), labels) + cost / (2 * len(logits))


@FITS
@PROPERTY
@given(seed=st.integers(0, 10_000), c=st.integers(2, 6), power=st.floats(-2, 3), other=st.floats(-2, 3))
def test_it_is_the_minimum_of_what_the_docstring_says(fit, seed: int, c: int, power: float, other: float) -> None:
    logits, labels = network(60, c, wrong=0.2, margin=2.0, seed=seed)
    strengths = (10**power, 10**other)
    g = fit(logits, labels, strengths=strengths)
    parameters = [v.requires_grad_() for v in vars(g).values() if isinstance(v, torch.Tensor)]
    value = objective(fit, g, logits, labels, strengths)
    gradients = torch.autograd.grad(value, parameters)
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-9
    # Not by chance flat: elsewhere the gradient is large.
    with torch.no_grad():
        parameters[-1] += 0.1 * torch.arange(c)
    moved = torch.autograd.grad(objective(fit, g, logits, labels, strengths), parameters)
    assert max(float(gradient.abs().max()) for gradient in moved) > 1e-4


FREQUENCIES = torch.tensor([[7, 2, 1], [4, 3, 3], [1, 1, 8], [2, 6, 2], [5, 4, 1], [1, 3, 6]])
MIXING = torch.tensor([[1.5, 0.2, -0.1], [0.3, 0.8, 0.0], [-0.2, 0.1, 1.1]]).double()
SHIFT = torch.tensor([0.4, -0.3, 0.1]).double()


@pytest.mark.parametrize(("fit", "mixing"), [(vector, MIXING.diagonal().diag()), (matrix, MIXING)])
def test_recovers_a_known_map(fit, mixing: torch.Tensor) -> None:
    # Labels whose frequencies are exactly softmax(A z + b): the likeliest probabilities are the frequencies.
    true = (FREQUENCIES / 10).double().log()
    z = torch.linalg.solve(mixing, (true - SHIFT).T).T
    logits = z.repeat_interleave(10, dim=0)
    labels = torch.cat([torch.arange(3).repeat_interleave(row) for row in FREQUENCIES])
    g = fit(logits, labels, strengths=(1e-9, 1e-9))
    torch.testing.assert_close(g(z).softmax(1), FREQUENCIES / 10.0, check_dtype=False, rtol=0, atol=1e-7)
    if fit is vector:  # of the same slope for all logits there is no freedom left but the level of the shift
        torch.testing.assert_close(g.scale, mixing.diagonal(), rtol=1e-5, atol=0)
        torch.testing.assert_close(g.shift - g.shift.mean(), SHIFT - SHIFT.mean(), rtol=1e-5, atol=1e-7)


def test_dirichlet_recovers_a_known_map_of_probabilities() -> None:
    # One row of log-probabilities for each vertex direction; W log p + b as above, with p that sum to 1.
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.05, 0.35, 0.6]]).double()
    true = (p.log() @ MIXING.T + SHIFT).softmax(1)
    # Weights instead of counts: frequencies to one in a thousand.
    counts = (true * 1000).round().long()
    logits = p.log().repeat_interleave(counts.sum(1), dim=0) + 5.0
    labels = torch.cat([torch.arange(3).repeat_interleave(row) for row in counts])
    got = dirichlet(logits, labels, strengths=(1e-6, 1e-6))(p.log()).softmax(1)
    torch.testing.assert_close(got, counts / counts.sum(1, keepdim=True), check_dtype=False, rtol=0, atol=1e-6)
    assert (got - p).abs().max() > 0.05


@FITS
def test_few_samples_do_not_ruin_it(fit) -> None:
    # Regression: unregularised, 400 samples of 10 classes raise the NLL of TorchUncertainty's matrix scaling from
    # 0.229 to 2.219 and that of its Dirichlet scaling to 1.346.
    held_out, truth = network(4000, 10, seed=1000)
    plain = loss(held_out, truth)
    for seed in range(4):
        logits, labels = network(400, 10, seed=seed)
        tempered = loss(temperature.fit(logits, labels)(held_out), truth)
        got = loss(fit(logits, labels)(held_out), truth)
        assert got < max(1.02 * plain, 1.005 * tempered)
        if fit is not vector:
            assert loss(fit(logits, labels, strengths=(1e-3, 1e-3))(held_out), truth) > 2 * plain


@FITS
def test_it_is_temperature_scaling_where_that_is_the_truth(fit) -> None:
    logits, labels = network(400, 5, margin=3.0)
    g = fit(logits, labels)
    assert g.strengths == INFINITE
    expected = temperature.fit(logits, labels)(logits)
    torch.testing.assert_close(g(logits).log_softmax(1), expected.log_softmax(1), rtol=1e-12, atol=1e-12)
    strong = fit(logits, labels, strengths=(1e12, 1e12))
    torch.testing.assert_close(strong(logits).softmax(1), expected.softmax(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("fit", "gain"), [(vector, 0.03), (matrix, 0.07), (dirichlet, 0.06)])
def test_it_finds_what_a_temperature_cannot_mend(fit, gain: float) -> None:
    logits, labels = network(1500, 6, wrong=0.15, margin=3.0)
    held_out, truth = network(4000, 6, wrong=0.15, margin=3.0, seed=1)
    g = fit(logits, labels)
    assert all(math.isfinite(strength) for strength in g.strengths)
    assert loss(g(held_out), truth) < (1 - gain) * loss(temperature.fit(logits, labels)(held_out), truth)
    assert fit(logits, labels).strengths == g.strengths


@FITS
def test_an_infinite_strength_holds_its_part_alone(fit) -> None:
    logits, labels = network(300, 4, wrong=0.2, margin=3.0)
    only_weights = fit(logits, labels, strengths=(1.0, math.inf))
    only_shift = fit(logits, labels, strengths=(math.inf, 1.0))
    assert only_weights.shift.abs().max() < 1e-9 < 0.1 < only_shift.shift.abs().max()
    linear = only_shift.scale.diag() if fit is vector else only_shift.weight
    torch.testing.assert_close(linear, linear[0, 0] * torch.eye(4).double(), rtol=0, atol=1e-9)
    assert objective(fit, only_weights, logits, labels, (1.0, 1.0)) < objective(
        fit, fit(logits, labels, strengths=INFINITE), logits, labels, (1.0, 1.0)
    )


@FITS
@PROPERTY
@given(factor=st.floats(0.1, 10))
def test_the_scale_of_the_logits_does_not_matter(fit, factor: float) -> None:
    logits, labels = network(100, 3, wrong=0.2, margin=2.0)
    expected = fit(logits, labels, strengths=(3.0, 5.0))(logits)
    got = fit(logits * factor, labels, strengths=(3.0, 5.0))(logits * factor)
    if fit is dirichlet:  # log-probabilities of scaled logits are other features, up to their level
        return
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_dirichlet_sees_probabilities_only() -> None:
    logits, labels = network(200, 4, wrong=0.2, margin=3.0)
    level = torch.linspace(-9, 9, 200).double()[:, None]
    g, m = (fit(logits, labels, strengths=(1.0, 1.0)) for fit in (dirichlet, matrix))
    torch.testing.assert_close(g(logits + level), g(logits))
    torch.testing.assert_close(dirichlet(logits + level, labels, strengths=(1.0, 1.0))(logits), g(logits))
    assert (m(logits + level).softmax(1) - m(logits).softmax(1)).abs().max() > 0.05


def test_the_strongest_within_two_standard_errors_is_chosen() -> None:
    plain, strong, weak = INFINITE, (10.0, 10.0), (1.0, 1.0)
    ones = torch.ones(4)
    choose = _regularised._choose
    assert choose({plain: ones, strong: 0.9 * ones, weak: 0.8 * ones}) == weak  # sure differences: the least
    # Differences 1, -1, 1, -0.9: mean 0.025, standard error 0.56.
    assert choose({plain: ones, strong: torch.tensor([0.0, 2.0, 0.0, 1.9])}) == plain
    # Differences 0.1, 0.3, 0.1, 0.3: mean 0.2, standard error 0.058, and `strong` lies between.
    weak_loss = torch.tensor([0.9, 0.7, 0.9, 0.7])
    assert choose({plain: ones, strong: weak_loss + torch.tensor([0.01, -0.005, 0.0, 0.0]), weak: weak_loss}) == strong
    # Within the error of the least, but above the first: differences 9, -3, -3, -2.9 of `strong`.
    worse = weak_loss + torch.tensor([9.0, -3.0, -3.0, -2.0])
    assert worse.mean() > 1
    assert choose({plain: ones, strong: worse, weak: weak_loss}) == weak


@FITS
def test_mistakes_are_refused(fit) -> None:
    logits, labels = network(20, 3)
    for bad in ((0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(OptionError, match="strengths: expected two positive numbers, or None to choose them, got"):
            fit(logits, labels, strengths=bad)
    with pytest.raises(DataError, match="labels: expected at least 2 labelled samples, to hold some out, got 1"):
        fit(logits[:1], labels[:1])
    assert fit(logits[:2], labels[:2])(logits).isfinite().all()
