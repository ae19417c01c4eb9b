"""Neuron coverage: by hand on a network whose neurons are its inputs, and what must hold for every network."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from caveat.errors import ModelError, OptionError
from caveat.neurons import Criteria, Ranges, coverage, layers_of, ranges


class Plain(nn.Module):
    """Its one hidden layer is the input."""

    def __init__(self, width=4):
        super().__init__()
        self.body, self.head = nn.Identity(), nn.Linear(width, 2)
        self.body = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.body.weight)

    def forward(self, inputs):
        return self.head(self.body(inputs))


TRAIN = torch.tensor([[0.0, 0.0, 5.0, 1.0], [1.0, 2.0, 5.0, 3.0]])
NET = Plain().eval()
KNOWN = ranges(NET, TRAIN)


def shares(rows, **options):
    return coverage(NET, torch.tensor(rows), KNOWN, criteria=Criteria(**options)).of()


def test_ranges_are_the_least_and_the_largest():
    assert KNOWN.layers == ("body",)
    assert KNOWN.low["body"].tolist() == [0, 0, 5, 1]
    assert KNOWN.high["body"].tolist() == [1, 2, 5, 3]


def test_every_criterion_by_hand():
    # scaled by its own input: (0, 1/5, 1, 2/5); below range: none; above: the last by 1
    found = shares([[0.5, 1.3, 4.5, 2.0]], thresholds=(0.0, 0.3, 0.9), sections=2, top=1)
    # scaled: (0.5 - 0.5)/4 = 0, 0.8/4 = .2, 1, 1.5/4 = .375
    assert found.nc == (0.75, 0.5, 0.25)
    assert found.kmnc == 3 / 6  # one cell of two of each of the three neurons that vary
    assert (found.nbc, found.snac, found.tknc) == (1 / 8, 0.0, 1 / 4)  # 4.5 lies below the constant 5


def test_the_ends_of_a_range_are_inside_of_it():
    found = shares([[0.0, 0.0, 5.0, 1.0], [1.0, 2.0, 5.0, 3.0]], sections=2)
    assert (found.nbc, found.snac, found.kmnc) == (0.0, 0.0, 1.0)


def test_beyond_the_range_is_no_cell_and_a_corner():
    found = shares([[-1.0, 3.0, 6.0, 2.0]], sections=4)
    assert found.kmnc == 1 / 12
    assert (found.nbc, found.snac) == (3 / 8, 2 / 4)


def test_neurons_that_never_vary_have_no_cells():
    constant = Ranges({"body": torch.ones(4)}, {"body": torch.ones(4)})
    assert math.isnan(coverage(NET, torch.ones(1, 4), constant).of().kmnc)


@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 2**20))
def test_neither_the_batch_nor_the_order_counts_and_more_inputs_cover_more(n, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 4, generator=generator) * 2
    whole = coverage(NET, rows, KNOWN)
    turned = coverage(NET, [(part, torch.zeros(len(part)).long()) for part in rows.flip(0).split(batch)], KNOWN)
    assert whole.of() == turned.of()
    half = coverage(NET, rows[: (n + 1) // 2], KNOWN)
    for name in ("kmnc", "nbc", "snac", "tknc"):
        assert getattr(half.of(), name) <= getattr(whole.of(), name)
    if n > 1:
        rest = coverage(NET, rows[(n + 1) // 2 :], KNOWN)
        merged = half.merged(rest)
        assert (merged.of(), merged.samples) == (whole.of(), n)


def test_convolutions_and_tokens_are_averaged_and_the_logits_are_no_neurons():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
        ).eval()
    inputs = torch.rand(9, 1, 6, 6)
    assert layers_of(net, inputs) == ("0", "1", "2")
    known = ranges(net, inputs, layers=["0"])
    torch.testing.assert_close(known.high["0"], net[0](inputs).mean(dim=(2, 3)).amax(0))
    full = ranges(net, inputs)
    found = coverage(net, inputs, full)
    assert found.of().nbc == 0
    assert found.of(["0"]).neurons == 3
    assert found.of().neurons == 9


def test_the_network_is_left_as_it_was_and_mistakes_are_told():
    before = [parameter.clone() for parameter in NET.parameters()]
    coverage(NET, TRAIN, KNOWN)
    assert all(torch.equal(a, b) for a, b in zip(before, NET.parameters(), strict=True))
    with pytest.raises(ModelError, match="no layer 'nose'"):
        ranges(NET, TRAIN, layers=["nose"])
    with pytest.raises(ModelError, match="training mode"):
        ranges(Plain().train(), TRAIN)
    with pytest.raises(ModelError, match="no layer whose neurons"):
        ranges(nn.Linear(4, 2).eval(), TRAIN)
    for options in ({"thresholds": (1.5,)}, {"sections": 0}, {"top": 0}):
        with pytest.raises(OptionError):
            Criteria(**options)
    with pytest.raises(OptionError, match="same ranges"):
        coverage(NET, TRAIN, KNOWN).merged(coverage(NET, TRAIN, KNOWN, criteria=Criteria(top=1)))
