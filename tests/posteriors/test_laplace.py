"""Laplace: closed forms and autograd's own Hessian."""

import math

import pytest
import torch
from tests.conftest import shapes_unchecked
from torch import nn
from torch.nn import functional

from caveat.errors import DataError, ModelError, OptionError
from caveat.posteriors import laplace


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 60, d: int = 4, c: int = 3):
    features = torch.randn(n, d, generator=seeded(1), dtype=torch.float64)
    labels = torch.randint(c, (n,), generator=seeded(2))
    head = (torch.randn(c, d, generator=seeded(3)).double(), torch.randn(c, generator=seeded(4)).double())
    return features, labels, head


def covariance(found: laplace.Laplace) -> torch.Tensor:
    """Of all weights, by the way it draws: a linear map of independent normals, one at a time."""
    columns = []
    size = found.mean.numel()
    for k in range(size):
        moved = torch.zeros(size, dtype=torch.float64)
        moved[k] = 1
        moved = found.deviation * moved.reshape(found.mean.shape)
        if found.inputs.numel():
            moved = found.outputs @ moved @ found.inputs.T
        elif found.outputs.numel():
            moved = (found.outputs @ moved.flatten()).reshape(found.mean.shape)
        columns.append(moved.flatten())
    factor = torch.stack(columns, dim=1)
    return factor @ factor.T


def test_a_linear_gaussian_model_has_the_closed_form() -> None:
    n, d, noise, precision = 40, 3, 0.3, 2.0
    inputs = torch.randn(n, d, generator=seeded(1), dtype=torch.float64)
    extended = torch.cat([inputs, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.1
    targets = targets + noise**0.5 * torch.randn(n, 1, generator=seeded(2), dtype=torch.float64)
    sharp = extended.T @ extended / noise + precision * torch.eye(d + 1, dtype=torch.float64)
    mean = torch.linalg.solve(sharp, extended.T @ targets / noise).T
    head = (mean[:, :-1], mean[:, -1])
    for structure in ("full", "kronecker"):
        found = laplace.fit_regression(
            inputs, targets, head, layer="l", noise=noise, structure=structure, prior_precision=precision
        )
        torch.testing.assert_close(covariance(found), torch.linalg.inv(sharp))
    # the evidence, too, is that of the Gaussian: targets ~ N(0, noise I + X X^T / precision)
    full = noise * torch.eye(n, dtype=torch.float64) + extended @ extended.T / precision
    expected = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), full).log_prob(targets.T)
    assert found.evidence == pytest.approx(float(expected), rel=1e-9)


def test_the_curvature_of_a_classifier_is_autograds_hessian() -> None:
    features, labels, head = data()
    weights = torch.cat([head[0], head[1].unsqueeze(1)], dim=1)
    extended = torch.cat([features, torch.ones(60, 1, dtype=torch.float64)], dim=1)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(extended @ flat.reshape(3, 5).T, labels, reduction="sum")

    hessian = torch.autograd.functional.hessian(loss, weights.flatten())
    found = laplace.fit(features, labels, head, layer="fc", prior_precision=1.5)
    torch.testing.assert_close(covariance(found), torch.linalg.inv(hessian + 1.5 * torch.eye(15, dtype=torch.float64)))
    diagonal = laplace.fit(features, labels, head, layer="fc", structure="diagonal", prior_precision=1.5)
    torch.testing.assert_close(diagonal.deviation.flatten(), (hessian.diagonal() + 1.5).rsqrt())


def test_kronecker_is_the_product_of_its_factors() -> None:
    features, labels, head = data()
    extended = torch.cat([features, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    probs = (features @ head[0].T + head[1]).softmax(dim=1)
    left = torch.diag_embed(probs).sum(dim=0) - probs.T @ probs
    right = extended.T @ extended / 60
    found = laplace.fit(features, labels, head, layer="fc", structure="kronecker", prior_precision=0.7)
    expected = torch.linalg.inv(torch.kron(left, right) + 0.7 * torch.eye(15, dtype=torch.float64))
    torch.testing.assert_close(covariance(found), expected)


def test_the_prior_of_the_highest_evidence_is_chosen() -> None:
    features, labels, head = data()
    found = laplace.fit(features, labels, head, layer="fc")
    assert 1e-6 < found.prior_precision < 1e6
    for factor in (0.97, 1.03):
        other = laplace.fit(features, labels, head, layer="fc", prior_precision=factor * found.prior_precision)
        assert other.evidence <= found.evidence
    assert math.isfinite(found.evidence)


def test_draws_have_its_mean_and_covariance() -> None:
    features, labels, head = data()
    found = laplace.fit(features, labels, head, layer="fc", prior_precision=3.0)
    generator = seeded(5)
    drawn = [found.draw(generator) for _ in range(20_000)]
    assert sorted(drawn[0]) == ["fc.bias", "fc.weight"]
    flat = torch.stack([torch.cat([w["fc.weight"], w["fc.bias"].unsqueeze(1)], dim=1).flatten() for w in drawn])
    torch.testing.assert_close(flat.mean(dim=0), found.mean.flatten(), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(flat.T), covariance(found), atol=0.02, rtol=0.1)


@pytest.mark.parametrize("structure", ["full", "kronecker", "diagonal"])
def test_a_layer_without_bias_is_one_with_a_constant_feature(structure) -> None:
    features, labels, (weight, bias) = data()
    extended = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    joined = (torch.cat([weight, bias[:, None]], dim=1), torch.zeros_like(bias))
    one = laplace.fit(features, labels, (weight, bias), layer="fc", structure=structure)
    two = laplace.fit(extended, labels, joined, layer="fc", structure=structure, bias=False)
    torch.testing.assert_close(covariance(two), covariance(one))
    drawn, whole = two.draw(seeded(5)), one.draw(seeded(5))
    assert list(drawn) == ["fc.weight"]
    torch.testing.assert_close(drawn["fc.weight"], torch.cat([whole["fc.weight"], whole["fc.bias"][:, None]], dim=1))
    with pytest.raises(OptionError, match="bias: expected zeros"):
        laplace.fit(features, labels, (weight, bias), layer="fc", bias=False)


def test_misuse_is_told() -> None:
    features, labels, head = data()
    with shapes_unchecked(), pytest.raises(DataError, match="as many as labels"):
        laplace.fit(features, labels[:-1], head, layer="fc")
    with pytest.raises(DataError, match="finite"):
        laplace.fit(features / 0, labels, head, layer="fc")
    with pytest.raises(OptionError, match="positive"):
        laplace.fit(features, labels, head, layer="fc", prior_precision=0.0)
    with pytest.raises(OptionError, match="use 'kronecker'"):
        laplace.fit(torch.rand(4, 3000), torch.zeros(4).long(), (torch.rand(3, 3000), torch.rand(3)), layer="fc")
    with pytest.raises(OptionError, match="variance"):
        laplace.fit_regression(features, features[:, :3], head, layer="fc", noise=0.0)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("structure", ["full", "kronecker", "diagonal"])
def test_the_variance_of_a_logit_is_that_of_the_covariance(structure: laplace.Structure, biased: bool) -> None:
    features, labels, (weight, bias) = data()
    head = (weight, bias if biased else torch.zeros_like(bias))
    found = laplace.fit(features, labels, head, layer="l", structure=structure, bias=biased)
    whole = covariance(found).reshape(*found.mean.shape, *found.mean.shape)
    inputs = torch.cat([features, torch.ones(len(features), 1).double()], dim=1) if biased else features
    expected = torch.stack([torch.einsum("ne,ef,nf->n", inputs, whole[k, :, k], inputs) for k in range(3)], dim=1)
    torch.testing.assert_close(found.spread(features), expected)


def test_probit_refuses_a_network_that_gives_other_logits_than_its_last_layer() -> None:
    features, labels, head = data()
    found = laplace.fit(features, labels, head, layer="0")

    class Turned(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs).flip(1)

    with pytest.raises(ModelError, match="got other logits"):
        laplace.Probit(Turned(nn.Linear(4, 3)).double().eval(), found)(features)
    twice = nn.Sequential(nn.Linear(4, 4)).double().eval()
    with pytest.raises(ModelError, match=r"one call of the layer '0' a pass, .* got 2"):
        laplace.Probit(nn.Sequential(twice[0], twice[0]).eval(), found)(features)


def test_the_probit_answer_is_near_that_of_many_draws_and_less_sure_far_away() -> None:
    features, labels, head = data(n=400, d=3)
    found = laplace.fit(features, labels, head, layer="0", prior_precision=30.0)
    net = nn.Sequential(nn.Linear(3, 3)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(head[0])
        net[0].bias.copy_(head[1])
        probit = laplace.Probit(net, found).eval()
        draws = [found.draw(seeded(seed)) for seed in range(2000)]
        few = features[:20]
        mean = torch.stack([(few @ w["0.weight"].T + w["0.bias"]).softmax(1) for w in draws]).mean(dim=0)
        torch.testing.assert_close(probit(few).softmax(1), mean, rtol=0, atol=0.01)
        far = 1e6 * features[:5]
        assert net(far).abs().max() > 1e5
        torch.testing.assert_close(probit(far), probit(10 * far), rtol=1e-4, atol=1e-4)  # it stays as sure as that
