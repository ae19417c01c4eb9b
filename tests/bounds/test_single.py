"""Coefficients in float32 pay for all that float32 rounds: their bounds hold those in float64, and are hardly wider."""

import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tests.bounds.test_bounds import Written, activated
from torch import nn
from torch.nn import functional

from caveat.attacks import Ball
from caveat.bounds import bounds, deeppoly
from caveat.bounds.region import Region
from caveat.bounds.single import UNIT, Single, begun
from caveat.bounds.values import Known
from caveat.errors import CaveatWarning
from caveat.graph import trace


def joined(self, x):
    """The input and a value on the way are used twice each, windows overlap, and a sum is broadcast."""
    a, b, head = self.layers
    y = functional.relu(a(x) + x.mean((2, 3), keepdim=True))
    y = functional.max_pool2d(y + b(y), 3, 1)
    y = functional.avg_pool2d(functional.relu(y * 1.5 - 0.2), 2, 1)
    return head(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))


def thrice(self, x):
    a, b, head = self.layers
    y = a(x)
    return head((functional.relu(y) + functional.relu(b(y)) + y).flatten(1))


NETWORKS = {
    "plain": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(),
        nn.Linear(30, 4),
    ),
    "joined": lambda: Written(joined, nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(4, 4)),
    "relu": lambda: activated(nn.ReLU()),
    "leaky": lambda: activated(nn.LeakyReLU(0.2)),
    "steep": lambda: activated(nn.LeakyReLU(1.5)),
    "gelu": lambda: activated(nn.GELU()),
    "tanh": lambda: activated(nn.Tanh()),
}  # fmt: skip


def drawn(model: nn.Module, generator: torch.Generator) -> nn.Module:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            new = torch.randn(value.shape, generator=generator) * 0.6
            value.copy_(new.abs() + 0.3 if "var" in key else new)
    return model.eval()


def both(model: nn.Module, inputs: torch.Tensor, ball: Ball) -> tuple[Known, Single]:
    """The same relaxations in float64, with no other coefficients on the way, and in float32."""
    graph, region = trace(model, inputs).to(torch.float64), Region.around(inputs, ball)
    unit = 2.0**-53  # a network that hardly rounds, so that nothing is paid for it that would cover what is lost here
    with patch("caveat.bounds.deeppoly.begun", return_value=None), torch.no_grad():
        found = deeppoly.known(graph, region, unit=unit)
    single = begun(graph, region, UNIT)
    assert single is not None
    single = replace(single, unit=unit)
    for k in range(len(graph.nodes)):
        single.follow(found, k)
    return found, single


@pytest.mark.parametrize("ball", [Ball(math.inf, 0.05), Ball(2, 0.3), Ball(1, 0.5)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_in_float32_hold_those_in_float64(name, ball):
    """Of every argument; without what is paid for float32 they do not."""
    generator, broken = torch.Generator().manual_seed(0), 0
    for _ in range(3):
        model = drawn(NETWORKS[name](), generator)
        found, single = both(model, torch.rand(4, 2, 6, 6, generator=generator), ball)
        unpaid = Known(
            single.known.graph, single.known.region, dtype=torch.float32,
            rounding={k: part.float() for k, part in found.rounding.items()},
            relaxed={k: part.mapped(_narrow) for k, part in found.relaxed.items()},
        )  # fmt: skip
        for k in found.relaxed:
            (place,) = found.graph.nodes[k - 1].arguments
            mask = torch.ones_like(found.bounds[place][0], dtype=torch.bool)
            with torch.no_grad():
                exact = deeppoly._refined(found, place, mask, 1 << 20, None, math.inf)
                paid = deeppoly._refined(single.known, place, mask, 1 << 20, None, math.inf)
                with patch("caveat.bounds.region.of_count", return_value=0.0):
                    loose = deeppoly._refined(unpaid, place, mask, 1 << 20, None, math.inf)
            assert bool((paid[0] <= exact[0]).all() & (paid[1] >= exact[1]).all())
            assert float(((paid[1] - paid[0]) / (exact[1] - exact[0])).max()) < 1.001
            broken += int((loose[0] > exact[0]).sum() + (loose[1] < exact[1]).sum())
    assert broken


def _narrow(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def test_float32_is_for_networks_that_have_no_more_and_whose_sums_cannot_cancel_unpaid():
    """In float64, where a value is used three times, with another value around the edges, and in TF32: float64."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 2, 6, 6, generator=generator)
    region = Region.around(inputs, Ball(math.inf, 0.1))
    plain = trace(drawn(NETWORKS["plain"](), generator), inputs)
    used = Written(thrice, nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1), nn.Linear(32, 4)).eval()
    padded = Written(
        lambda self, x: self.layers[0](functional.pad(x, (1, 0), value=0.5).flatten(1)), nn.Linear(84, 4)
    ).eval()
    assert begun(plain, region, UNIT) is not None
    assert begun(plain, region, 2.0**-11) is not None
    assert begun(plain, region, 2.0**-53) is None
    assert begun(trace(used, inputs), region, UNIT) is None
    assert begun(trace(padded, inputs), region, UNIT) is None
    with precision("high"):
        assert begun(plain, region, UNIT) is None


def test_bounds_are_wider_where_pytorch_may_multiply_in_less_than_float32():
    """They hold for the network as it runs, and the setting is the process's."""
    generator = torch.Generator().manual_seed(0)
    model, inputs = drawn(NETWORKS["plain"](), generator), torch.rand(2, 2, 6, 6, generator=generator)
    widths = list[float]()
    for name in ("highest", "high", "medium"):
        said = nullcontext() if name == "highest" else pytest.warns(CaveatWarning, match="fewer digits than float32")
        with precision(name), said:
            low, high = bounds(model, inputs, Ball(math.inf, 0.001))
        widths.append(float((high - low).mean()))
    assert widths[0] < widths[1] < widths[2]
    low, high = bounds(model.double(), inputs.double(), Ball(math.inf, 0.001))
    with precision("medium"):
        again = bounds(model, inputs.double(), Ball(math.inf, 0.001))
    torch.testing.assert_close(again, (low, high))


@contextmanager
def precision(name: str):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def test_weights_beyond_float32_give_no_bound_but_an_infinite_one():
    """Coefficients that overflow on the way prove nothing, and break nothing."""
    generator = torch.Generator().manual_seed(0)
    hidden = (layer for _ in range(4) for layer in (nn.Linear(3, 3, bias=False), nn.ReLU()))
    model = nn.Sequential(*hidden, nn.Linear(3, 2, bias=False)).eval()
    for value in model.parameters():
        value.data = 1e12 * torch.randn(value.shape, generator=generator)
    inputs = torch.rand(2, 3, generator=generator) * 1e-36
    low, high = bounds(model, inputs, Ball(math.inf, 1e-36))
    answers = model(inputs).double()
    assert bool((low <= answers).all() & (answers <= high).all() & high.isfinite().all())
