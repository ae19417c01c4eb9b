"""SWAG, TRADI and snapshots: what they collect, against plain Python; and the defects of others, not repeated."""

import math

import pytest
import torch
from tests.conftest import shapes_unchecked
from torch import nn

from caveat.errors import OptionError
from caveat.objectives import cross_entropy
from caveat.posteriors import ensemble, layers, perturbation, snapshots, swag, tradi
from caveat.training import fit


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()


BATCHES = [
    (torch.randn(16, 3, generator=seeded(k), dtype=torch.float64), torch.randint(2, (16,), generator=seeded(100 + k)))
    for k in range(6)
]


class Recorder:
    """Every weight and gradient after every step, as plain numbers."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.steps: list[tuple[float, dict[str, list[float]], dict[str, list[float]]]] = []

    def update(self, model: nn.Module) -> None:
        weights = {name: w.detach().flatten().tolist() for name, w in model.named_parameters()}
        slopes = {name: w.grad.flatten().tolist() for name, w in model.named_parameters() if w.grad is not None}
        self.steps.append((self.optimizer.param_groups[0]["lr"], weights, slopes))


def trained(trackers, optimizer_of, model=None, epochs=4):
    model = tiny() if model is None else model
    optimizer = optimizer_of(model)
    made = [make(model, optimizer) for make in trackers]
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    fit(
        model, BATCHES, cross_entropy, optimizer=optimizer, schedule=schedule, epochs=epochs, trackers=made,
        generator=seeded(0),
    )  # fmt: skip
    return model, made


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=0.01)


@pytest.mark.parametrize("burn_in", [0, 5])
def test_tradi_tracks_what_a_plain_filter_tracks(burn_in: int) -> None:
    start = tiny()
    model, (tracker, recorder) = trained(
        [lambda m, o: tradi.start(m, o, burn_in=burn_in), lambda m, o: Recorder(o)], adam
    )
    tracked = tracker.posterior()
    for name, shape in [("0.weight", (4, 3)), ("0.bias", (4,)), ("3.weight", (2, 4)), ("3.bias", (2,))]:
        steps = recorder.steps[burn_in:]
        first = dict(start.named_parameters())[name].flatten().tolist() if not burn_in else steps[0][1][name]
        inputs = 3 if name.startswith("0") else 4
        for unit in range(math.prod(shape)):
            mean, variance = first[unit], 0.0 if burn_in else 2 / inputs
            uncertain_mean = uncertain_variance = 0.0
            for rate, weights, slopes in steps:
                w, g = weights[name][unit], slopes[name][unit]
                # predict
                mean, variance = mean - rate * g, variance + (rate * g) ** 2
                uncertain_mean, uncertain_variance = uncertain_mean + 1e-4, uncertain_variance + 5e-5
                # correct: z = w^2 observes variance + mean^2, which is (w - mean)^2 for the variance
                gain = uncertain_mean / (uncertain_mean + 10)
                mean += gain * (w - mean)
                uncertain_mean *= 1 - gain
                gain = uncertain_variance / (uncertain_variance + 10)
                variance += gain * ((w - mean) ** 2 - variance)
                uncertain_variance *= 1 - gain
            assert tracked.mean[name].flatten()[unit].item() == pytest.approx(mean, rel=1e-9, abs=1e-12)
            assert tracked.variance[name].flatten()[unit].item() == pytest.approx(variance, rel=1e-9, abs=1e-15)
    assert "1.weight" not in tracked.variance
    assert torch.equal(tracked.mean["1.weight"], model[1].weight.detach())


def test_tradi_gains_tend_to_the_stationary_ones() -> None:
    noise = tradi.Noise()
    tracker = tradi.Tracker(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), noise, 0)
    for _ in range(5000):
        gains = tracker._gains()
    # P = P + Q - K (P + Q) is stationary at K = (P + Q) / (P + Q + R)
    assert gains == pytest.approx((0.003157, 0.002234), rel=1e-3)


def test_tradi_draws_have_the_covariance_of_the_kernel() -> None:
    mean = {"a": torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)}
    variance = {"a": torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)}
    found = tradi.Tradi(mean, variance, "shared", 10, 1.0)
    generator = seeded(3)
    draws = torch.stack([found.draw(generator)["a"] - mean["a"] for _ in range(8000)])
    deviation = variance["a"].sqrt()
    apart = mean["a"].unsqueeze(0) - mean["a"].unsqueeze(1)
    expected = deviation.unsqueeze(0) * deviation.unsqueeze(1) * (-apart.square() / 2).exp()
    torch.testing.assert_close(draws.T @ draws / len(draws), expected, rtol=0.06, atol=0.08)
    alone = tradi.Tradi(mean, variance, "per_weight", 10, 1.0)
    draws = torch.stack([alone.draw(generator)["a"] - mean["a"] for _ in range(8000)])
    torch.testing.assert_close(draws.T @ draws / len(draws), torch.diag(variance["a"]), rtol=0.06, atol=0.1)


def test_tradi_takes_any_optimizer_and_groups_with_rates_of_their_own() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters(), "lr": 0.0}], momentum=0.9
    )
    tracker = tradi.start(model, optimizer)
    fit(model, BATCHES, cross_entropy, optimizer=optimizer, epochs=1, trackers=[tracker], generator=seeded(0))
    found = tracker.posterior()
    start = dict(tiny().named_parameters())
    # a weight that does not move keeps its mean, and its variance fades
    torch.testing.assert_close(found.mean["3.weight"], start["3.weight"].detach(), rtol=1e-9, atol=0)
    assert float((found.variance["3.weight"] - 0.5).abs().max()) < 2e-4
    with pytest.raises(OptionError, match="belongs to the model"):
        tradi.start(tiny(), optimizer)


def test_swag_collects_means_variances_and_deviations() -> None:
    _, (tracker, recorder) = trained(
        [lambda m, o: swag.start(m, rank=3, burn_in=4, every=5), lambda m, o: Recorder(o)], adam
    )
    kept = [torch.tensor(weights["0.weight"], dtype=torch.float64).reshape(4, 3) for _, weights, _ in recorder.steps]
    kept = kept[4::5]
    found = tracker.posterior()
    torch.testing.assert_close(found.mean["0.weight"], torch.stack(kept).mean(dim=0))
    torch.testing.assert_close(found.variance["0.weight"], torch.stack(kept).var(dim=0, unbiased=False))
    running = [torch.stack(kept[: k + 1]).mean(dim=0) for k in range(len(kept))]
    expected = torch.stack([w - m for w, m in zip(kept, running, strict=True)][-3:])
    torch.testing.assert_close(found.deviations["0.weight"], expected)


def test_swag_draws_move_all_tensors_together_by_one_low_rank_vector() -> None:
    # TorchUncertainty 0.13 draws one vector a tensor: its draws of low rank K have rank K * tensors
    zeros = {"a": torch.zeros(5, dtype=torch.float64), "b": torch.zeros(7, dtype=torch.float64)}
    deviations = {
        name: torch.randn(3, len(value), generator=seeded(len(value))).double() for name, value in zeros.items()
    }
    found = swag.Swag(zeros, zeros, deviations, 0.5)
    generator = seeded(0)
    drawn = [found.draw(generator) for _ in range(40)]
    both = torch.stack([torch.cat([weights["a"], weights["b"]]) for weights in drawn])
    assert torch.linalg.matrix_rank(both) == 3
    many = torch.stack([found.draw(generator)["a"] for _ in range(20_000)])
    # scale 1/2 and the divisor of the deviations that were kept, less one
    expected = 0.5 * deviations["a"].T @ deviations["a"] / 2
    torch.testing.assert_close(many.T @ many / len(many), expected, rtol=0.08, atol=0.08)


def test_swag_variance_does_not_cancel_in_float32() -> None:
    layer = nn.Linear(1, 1, bias=False)
    tracker = swag.start(layer, every=1)
    for k in range(200):
        layer.weight.data.fill_(1000.0 + 0.01 * (-1) ** k)
        tracker.update(layer)
    assert tracker.posterior().variance["weight"].item() == pytest.approx(1e-4, rel=0.05)


def test_snapshots_and_their_average() -> None:
    _, (tracker, recorder) = trained(
        [lambda m, o: snapshots.start(m, every=4, burn_in=2), lambda m, o: Recorder(o)], adam
    )
    found = tracker.posterior()
    kept = [torch.tensor(weights["3.bias"], dtype=torch.float64) for _, weights, _ in recorder.steps][5::4]
    torch.testing.assert_close(found.weights["3.bias"], torch.stack(kept))
    assert "1.running_mean" in found.weights
    torch.testing.assert_close(ensemble.average(found)["3.bias"], torch.stack(kept).mean(dim=0))


def test_too_early_is_told() -> None:
    model = tiny()
    optimizer = adam(model)
    with pytest.raises(OptionError, match="nothing tracked"):
        tradi.start(model, optimizer, burn_in=10).posterior()
    with pytest.raises(OptionError, match="at least 2 snapshots"):
        swag.start(model).posterior()
    with pytest.raises(OptionError, match="none after 0 steps"):
        snapshots.start(model, every=1).posterior()
    with pytest.raises(OptionError, match="burn_in"):
        tradi.start(model, optimizer, burn_in=-1)
    with pytest.raises(OptionError, match="every"):
        swag.start(model, every=0)
    for noise in (tradi.Noise(mean=-1e-9), tradi.Noise(variance=-1e-9), tradi.Noise(observed=0.0)):
        with pytest.raises(OptionError, match="positive noises"):
            tradi.start(model, optimizer, noise=noise)
    tradi.start(model, optimizer, noise=tradi.Noise(0.0, 0.0, 0.5))  # without process noise: the mean of all steps
    for option in ({"every": 0}, {"every": 1, "burn_in": -1}):
        with pytest.raises(OptionError, match="every"):
            snapshots.start(model, **option)
    with shapes_unchecked(), pytest.raises(OptionError, match="covariance"):
        tradi.start(model, optimizer).posterior(covariance="full")  # type: ignore[arg-type]


def test_the_inputs_of_a_unit() -> None:
    """Of 3 channels of 5 x 5 values; a bias has those of its unit; a scale or shift of a normalisation has one."""
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Linear(4, 2))
    found = {"0.weight": 75, "0.bias": 75, "1.weight": 1, "1.bias": 1, "2.weight": 4, "2.bias": 4}
    assert layers.fan_in(net) == found


@pytest.mark.parametrize("how", ["frozen", "not in the optimizer"])
@pytest.mark.parametrize("burn_in", [0, 2])
def test_tradi_draws_untrained_weights_as_they_are(how, burn_in):
    """They got the variance of an initialisation: a draw moved them by 0.35."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    net[0].requires_grad_(how != "frozen")
    before, inputs, labels = net[0].weight.detach().clone(), torch.rand(40, 8), torch.arange(40) % 4
    optimizer = torch.optim.SGD((net[2] if how != "frozen" else net).parameters(), lr=0.1)
    tracker = tradi.start(net, optimizer, burn_in=burn_in)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        tracker.update(net)
    drawn = tracker.posterior().draw(torch.Generator().manual_seed(0))
    assert torch.equal(drawn["0.weight"], before)
    assert burn_in or (drawn["2.weight"] - net[2].weight).abs().max() > 0.05


def test_noise_on_weights_leaves_frozen_ones():
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    net[0].requires_grad_(False)
    drawn = perturbation.fit(net).draw(torch.Generator().manual_seed(0))
    assert torch.equal(drawn["0.weight"], net[0].weight)
    assert not torch.equal(drawn["1.weight"], net[1].weight)
