"""What every objective of every table promises: a mean over samples that training can lower, and nothing beside it."""

import pytest
import torch
from torch import Tensor, nn

from caveat.models import WithAutoencoder
from caveat.objectives import FOR_PIXELS, FOR_RECONSTRUCTION, FOR_REGRESSION, OBJECTIVES, Objective

ALL = OBJECTIVES | FOR_RECONSTRUCTION | FOR_REGRESSION | FOR_PIXELS
OUTPUTS = {
    "heteroscedastic": 2, "beta_nll": 2, "mixture_density": 6, "evidential": 4, "quantile": 3, "mean_squared_error": 1
}  # fmt: skip
"""Numbers a sample that objectives of regression need from the network."""


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, inputs in [0, 1] and labels as the table of `name` says, in float64."""
    inputs = torch.rand(12, 1, 8, 8, generator=seeded(0), dtype=torch.float64)
    labels = torch.arange(12) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = OUTPUTS.get(name, 3)
        dense = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 1))
        model: nn.Module = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, wide)
        )
        if name in FOR_PIXELS:
            model, labels = dense, torch.randint(3, (12, 8, 8), generator=seeded(2))
        elif name in FOR_REGRESSION:
            labels = torch.randn(12, generator=seeded(2), dtype=torch.float64)
        elif name in FOR_RECONSTRUCTION:
            decoder = nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1), nn.Sigmoid()
            )
            model = WithAutoencoder(model, decoder)
    return model.double(), inputs, labels


def value(name: str, objective: Objective | None = None) -> Tensor:
    model, inputs, labels = case(name)
    return (objective or ALL[name])(model.eval(), inputs, labels, seeded())


@pytest.mark.parametrize("name", ALL)
def test_a_finite_scalar_that_repeats_with_its_generator_alone(name):
    before = torch.get_rng_state()
    first, second = value(name), value(name)
    assert first.shape == ()
    assert first.dtype == torch.float64
    assert first.isfinite()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ALL)
def test_steps_along_its_gradient_lower_it(name):
    model, inputs, labels = case(name)
    values: list[float] = []
    optimizer = torch.optim.SGD(model.eval().parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss = ALL[name](model, inputs, labels, seeded())
        loss.backward()
        values.append(loss.item())
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
        optimizer.step()
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", ALL)
def test_modes_gradients_inputs_and_labels_are_left_alone(name):
    model, inputs, labels = case(name)
    next(model.children()).eval()
    modes = [layer.training for layer in model.modules()]
    kept = inputs.clone(), labels.clone()
    ALL[name](model, inputs, labels, seeded())
    assert modes == [layer.training for layer in model.modules()]
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert torch.equal(inputs, kept[0])
    assert torch.equal(labels, kept[1])
    assert not inputs.requires_grad


@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64(name):
    model, inputs, labels = case(name)
    exact = value(name)
    labels = labels.float() if labels.is_floating_point() else labels
    single = ALL[name](model.float().eval(), inputs.float(), labels, seeded())
    assert single.dtype == torch.float32
    # noise that is drawn in another dtype is other noise: the same to a tenth
    assert single.item() == pytest.approx(exact.item(), rel=0.1, abs=0.02)
