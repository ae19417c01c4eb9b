"""A guard's weights in a network that computes something else with them are refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

import caveat
from caveat.errors import ModelError
from caveat.guard import MultilabelGuard, RegressionGuard
from caveat.guard.likeness import answers

INPUTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))


def net(activation: type[nn.Module] = nn.ReLU, outputs: int = 3) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), activation(), nn.Linear(16, outputs)).eval()


class Careful(nn.Module):
    """A network that looks at its inputs: noise is none that it was trained on."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        assert bool((inputs[:, 0] == 1).all())
        return inputs[:, 1:4]


def fitted(kind: str) -> tuple[caveat.Guard | RegressionGuard | MultilabelGuard, int]:
    if kind == "classification":
        return caveat.Guard.fit(net(), (INPUTS, net()(INPUTS).argmax(1)), keep=0.9, score="msp"), 3
    if kind == "regression":
        return RegressionGuard.fit(net(outputs=2), (INPUTS, INPUTS[:, 0]), keep=0.9, outputs="gaussian"), 2
    return MultilabelGuard.fit(net(), (INPUTS, (INPUTS[:, :3] > 0).long()), keep=0.9, error=0.3), 3


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_another_forward_with_weights_that_fit_is_refused(kind: str, tmp_path: Path) -> None:
    guard, outputs = fitted(kind)
    guard.save(tmp_path / "guard", model="nets:net")
    again = type(guard).load(tmp_path / "guard", net(outputs=outputs))
    assert torch.equal(again(INPUTS).score, guard(INPUTS).score)
    with pytest.raises(ModelError, match=r"computes something else with them.*\(nets:net\)"):
        type(guard).load(tmp_path / "guard", net(nn.Tanh, outputs))


def test_what_cannot_be_generated_is_not_compared() -> None:
    assert answers(net(), (6,), None) is None
    assert answers(net(), (5,), 1.0) is None  # the network fails on such inputs
    assert answers(net(), (), 1.0) is None
    assert answers(Careful(), (6,), 1.0) is None
    found = answers(net().double(), (6,), 1.0)
    assert found is not None
    assert len(found.values) == 12
