"""Networks whose gradient is zero although a small change breaks them: a linear network behind a rounding."""

import math

import pytest
import torch
from torch import nn

from caveat.attacks import Ball, StraightThrough, estimated, masked, pgd, without_gradient
from caveat.attacks.noise import Noise
from caveat.audits.audit import audit
from caveat.errors import CaveatWarning, OptionError

LABELS = torch.arange(40) % 2
# every pixel is 0.1 from the border: within 0.2 all answers can be turned, within 0.05 none
INPUTS = torch.full((40, 1, 4, 4), 0.5) + (2 * LABELS[:, None, None, None] - 1) * 0.1
BALL = Ball(math.inf, 0.2)


class Behind(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.fc, self.before = nn.Linear(16, 2), before
        with torch.no_grad():
            self.fc.weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
            self.fc.bias.copy_(torch.tensor([8.0, -8.0]))
        self.eval()

    def forward(self, inputs):
        return self.fc(self.before(inputs).flatten(1))


ROUNDINGS = {
    "round": lambda x: torch.round(x * 255) / 255,
    "floor, a method": lambda x: (x * 255).floor() / 255,
    "in place": lambda x: (x * 255).round_() / 255,
    "bytes": lambda x: (x * 255).byte().float() / 255,
    "to": lambda x: (x * 255).to(torch.uint8).float() / 255,
    "a table": lambda x: torch.linspace(0, 1, 256)[(x * 255).long()],
    "detached": lambda x: x.detach(),
}


def accuracy(model, inputs):
    return float((model(inputs).argmax(1) == LABELS).float().mean())


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", ROUNDINGS)
def test_a_masked_network_is_noticed_and_broken(name):
    model = Behind(ROUNDINGS[name])
    assert accuracy(model, INPUTS) == 1.0
    assert masked(model, INPUTS, LABELS).all()
    found = without_gradient(model, INPUTS, LABELS, BALL, generator=seeded())
    assert accuracy(model, found) == 0.0
    assert float((found - INPUTS).abs().max()) <= 0.2 + 1e-6
    out_of_reach = without_gradient(model, INPUTS, LABELS, Ball(math.inf, 0.05), generator=seeded())
    assert accuracy(model, out_of_reach) == 1.0


@pytest.mark.parametrize("name", ["round", "floor, a method", "in place", "bytes", "to"])
def test_straight_through_keeps_the_values_and_passes_the_gradient(name):
    model = Behind(ROUNDINGS[name])
    through = StraightThrough(model).eval()
    points = INPUTS.clone().requires_grad_()
    logits = through(points)
    torch.testing.assert_close(logits, model(INPUTS), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), points)
    torch.testing.assert_close(gradient, torch.ones_like(gradient))
    assert accuracy(through, pgd(through, INPUTS, LABELS, BALL, generator=seeded())) == 0.0


def test_an_open_network_is_not_masked_and_a_dead_one_is():
    assert not masked(Behind(lambda x: x), INPUTS, LABELS).any()
    dead = Behind(lambda x: (x - 2).relu())
    assert masked(dead, INPUTS, LABELS).all()
    assert masked(dead, INPUTS[:0], LABELS[:0]).shape == (0,)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_estimates_turn_a_linear_network_in_every_norm(norm):
    """The smallest change has norm 0.1 for inf, 0.4 for 2 and 1.6 for 1: within four times that it is found."""
    radius = {1: 6.4, 2: 1.6, math.inf: 0.4}[norm]
    found = estimated(Behind(lambda x: x), INPUTS, LABELS, Ball(norm, radius), generator=seeded(), directions=32)
    assert accuracy(Behind(lambda x: x), found) == 0.0
    for options in ({"directions": 0}, {"width": 0.0}):
        with pytest.raises(OptionError, match="directions, width"):
            estimated(Behind(lambda x: x), INPUTS, LABELS, BALL, generator=seeded(), **options)


def test_every_direction_has_numbers_of_its_own(monkeypatch):
    asked, uniform = [], Noise.uniform

    def noted(self, numbers, *, stream):
        asked.append(stream)
        return uniform(self, numbers, stream=stream)

    monkeypatch.setattr(Noise, "uniform", noted)
    estimated(Behind(torch.tanh), INPUTS, LABELS, BALL, generator=seeded(), steps=3, directions=4)
    assert sorted(asked) == list(range(13))  # one for the start


def test_pgd_says_that_it_could_not_move():
    with pytest.warns(CaveatWarning, match="gradient is zero at all 40 inputs"):
        pgd(Behind(ROUNDINGS["round"]), INPUTS, LABELS, BALL, generator=seeded())


@pytest.mark.parametrize(("name", "notes"), [("round", 1), ("detached", 1), ("open", 0)])
def test_an_audit_attacks_without_the_gradient_and_says_so(name, notes):
    model = Behind(ROUNDINGS.get(name, lambda x: x))
    inputs = INPUTS + 0.01 * torch.randn(INPUTS.shape, generator=seeded())
    batches = [(inputs[k : k + 20], LABELS[k : k + 20]) for k in (0, 20)]
    found = audit(
        model, batches, scores=["msp"], calibrations=["temperature"], replicas=5, attack_radii=[0.3], attack_samples=30
    )
    assert [r.accuracy for r in found.attacked[0].radii] == [1.0, 0.0]
    assert sum("the gradient with respect to the input is zero" in note for note in found.notes) == notes
    assert (found.attacked[0].masked > 0) == bool(notes)
