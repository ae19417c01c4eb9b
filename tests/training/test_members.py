"""Ensembles, member by member."""

from pathlib import Path

import pytest
import torch
from torch import nn

from caveat.errors import OptionError
from caveat.objectives import cross_entropy
from caveat.training import fit, members

BATCHES = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 2)]


def train(seed: int, checkpoint: Path) -> nn.Module:
    model = nn.Linear(3, 2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.weight.copy_(torch.randn(2, 3, generator=generator))
        model.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, BATCHES, cross_entropy, optimizer=optimizer, epochs=2, generator=generator, checkpoint=checkpoint)
    return model


def test_parallel_members_are_those_trained_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # other processes import `train` by its module's name
    one = members(train, seeds=[3, 1], folder=tmp_path / "a")
    two = members(train, seeds=[3, 1], folder=tmp_path / "b", processes=2)
    assert len(one) == 2
    assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())
    torch.testing.assert_close(one.member(1)["weight"], train(1, tmp_path / "c").weight.detach())


def test_what_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(seed: int, checkpoint: Path) -> nn.Module:
        asked.append(seed)
        if seed == 2 and asked.count(2) == 1:
            raise KeyboardInterrupt
        return train(seed, checkpoint)

    with pytest.raises(KeyboardInterrupt):
        members(counted, seeds=[1, 2, 3], folder=tmp_path)
    found = members(counted, seeds=[1, 2, 3], folder=tmp_path, only=[])
    assert asked == [1, 2, 2, 3]
    assert len(found) == 3


def test_misuse_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="different seeds"):
        members(train, seeds=[1, 1], folder=tmp_path)
    with pytest.raises(OptionError, match="at least 1"):
        members(train, seeds=[1], folder=tmp_path, processes=0)
