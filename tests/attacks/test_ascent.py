import math

import pytest
import torch

from caveat.attacks import Ball, ascend, constant, cosine, from_inputs, shrunk, uniform
from caveat.attacks.noise import drawn
from caveat.errors import ModelError, OptionError


def bumps(inputs):
    """Two hills along each value: a low one near, a high one further off."""
    return (torch.exp(-((inputs - 0.45) * 20).square()) + 2 * torch.exp(-((inputs - 0.9) * 20).square())).sum(1)


def test_the_best_point_is_kept_not_the_last():
    """A step of 0.3 from 0.4 reaches the top of a parabola at 0.7 and steps over it ever after."""
    found = ascend(
        lambda x: -(x - 0.7).square().sum(1), torch.full((1, 1), 0.4), Ball(math.inf, 0.5),
        generator=torch.Generator(), steps=2, step=0.3, start=from_inputs,
    )  # fmt: skip
    assert float(found.inputs) == pytest.approx(0.7)
    assert float(found.values) == pytest.approx(0.0, abs=1e-12)


def test_the_inputs_count_even_if_the_start_is_elsewhere():
    inputs = torch.full((6, 2), 0.5)
    found = ascend(lambda x: -(x - 0.5).abs().sum(1), inputs, Ball(2, 0.4), generator=torch.Generator(), steps=3)
    assert torch.equal(found.inputs, inputs)


def test_passes_are_one_forward_and_backward_a_step():
    seen = []

    def function(points):
        seen.append(torch.is_grad_enabled() and points.requires_grad)
        return points.square().sum(1)

    ascend(function, torch.rand(4, 3), Ball(2, 0.1), generator=torch.Generator(), steps=7, restarts=2)
    assert seen.count(True) == 14
    assert seen.count(False) == 3  # the inputs, and the last point of each restart
    seen.clear()
    ascend(function, torch.rand(4, 3), Ball(2, 0.1), generator=torch.Generator(), steps=7, start=from_inputs)
    assert (seen.count(True), seen.count(False)) == (7, 1)


@pytest.mark.parametrize(
    ("norm", "steps", "length"), [(1, 5, 0.2), (1, 50, 0.04), (2, 5, 0.2), (2, 50, 0.02), (math.inf, 5, 0.08)]
)
def test_without_a_step_each_norm_has_its_own(norm, steps, length):
    """Of radius 0.4: 2.5 radius / steps for norms 1 and 2, for 1 at least radius / 10; radius / steps for inf."""
    seen = []

    def slope(points):
        seen.append(points.detach())
        return points[:, 0]

    ball = Ball(norm, 0.4, None, None)
    ascend(slope, torch.zeros(1, 2).double(), ball, generator=torch.Generator(), steps=steps, start=from_inputs)
    torch.testing.assert_close(seen[1], torch.tensor([[length, 0.0]]).double())


def test_restarts_find_the_higher_hill():
    options = {"steps": 20, "step": 0.01, "start": uniform}
    inputs, ball = torch.full((40, 1), 0.4).double(), Ball(math.inf, 0.6)
    one = ascend(bumps, inputs, ball, generator=torch.Generator().manual_seed(0), restarts=1, **options)
    many = ascend(bumps, inputs, ball, generator=torch.Generator().manual_seed(0), restarts=12, **options)
    assert (many.values >= one.values).all()
    assert (one.values > 1.9).float().mean() < 0.6
    assert (many.values > 1.9).float().mean() > 0.9


def test_momentum_leaves_a_low_hill():
    """A ripple on a slope: plain ascent stops at its first crest, momentum goes over it."""

    def ripple(x):
        return (2 * x + 0.1 * torch.sin(30 * x)).sum(1)

    options = {"generator": torch.Generator(), "steps": 60, "step": 0.012, "start": from_inputs}
    inputs, ball = torch.zeros(1, 1).double(), Ball(math.inf, 1.0)
    plain = ascend(ripple, inputs, ball, **options)
    heavy = ascend(ripple, inputs, ball, momentum=0.95, **options)
    assert float(heavy.inputs) > float(plain.inputs) + 0.3


def test_starts_are_where_they_say():
    centres, ball = torch.full((3000, 2), 0.5), Ball(math.inf, 0.4)
    noise = drawn(3000, torch.Generator().manual_seed(0))
    reach = {start: ball.distance(start(ball, centres, noise, 0), centres) for start in (uniform, shrunk)}
    assert torch.equal(from_inputs(ball, centres, noise, 0), centres)
    assert not torch.equal(from_inputs(ball, centres, noise, 1), centres)
    assert not torch.equal(uniform(ball, centres, noise, 0), uniform(ball, centres, noise, 1))
    # of a square's uniform points the distance (norm inf) has mean 2/3 of the radius; a uniform radius halves it
    assert float(reach[uniform].mean()) == pytest.approx(0.4 * 2 / 3, rel=0.02)
    assert float(reach[shrunk].mean()) == pytest.approx(0.4 / 3, rel=0.04)


def test_a_schedule_shortens_the_steps():
    assert [constant(0.0), constant(0.9)] == [1.0, 1.0]
    assert cosine(0.0) == 1.0
    assert cosine(0.5) == pytest.approx(0.5)
    options = {"generator": torch.Generator(), "steps": 50, "step": 0.1, "start": from_inputs}
    inputs = torch.full((1, 2), 0.5).double()

    def peak(x):
        return -(x - torch.tensor([0.613, 0.287])).abs().sum(1)

    coarse = ascend(peak, inputs, Ball(math.inf, 0.4), **options)
    fine = ascend(peak, inputs, Ball(math.inf, 0.4), schedule=cosine, **options)
    assert float(fine.values) > float(coarse.values) + 1e-3


def test_a_gradient_of_0_stays():
    inputs = torch.rand(3, 4)
    found = ascend(lambda x: (x * 0).sum(1), inputs, Ball(2, 0.2), generator=torch.Generator(), steps=3)
    assert torch.equal(found.inputs, inputs)


def test_works_inside_no_grad_and_inference_mode():
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            inputs = torch.rand(3, 4)
            found = ascend(lambda x: x.sum(1), inputs, Ball(2, 0.2), generator=torch.Generator(), steps=3)
            assert (found.values > inputs.sum(1)).all()


def test_nothing_to_do():
    inputs = torch.rand(3, 4)
    for ball, steps in ((Ball(2, 0.0), 5), (Ball(2, 0.1), 0)):
        found = ascend(lambda x: x.sum(1), inputs, ball, generator=torch.Generator(), steps=steps)
        assert torch.equal(found.inputs, inputs)
    assert ascend(lambda x: x.sum(1), inputs[:0], Ball(2, 0.1), generator=torch.Generator()).values.shape == (0,)


def test_errors_teach():
    inputs, ball = torch.rand(3, 4), Ball(2, 0.1)
    with pytest.raises(ModelError, match="one value for each of 3 inputs"):
        ascend(lambda x: x.sum(), inputs, ball, generator=torch.Generator())
    with pytest.raises(ModelError, match="has no gradient"):
        ascend(lambda x: x.detach().sum(1), inputs, ball, generator=torch.Generator())
    with pytest.raises(ModelError, match="NaN"):
        ascend(lambda x: x.sum(1) * math.nan, inputs, ball, generator=torch.Generator())
    for option in ({"steps": -1}, {"restarts": 0}, {"step": 0.0}, {"momentum": -0.1}):
        with pytest.raises(OptionError, match=next(iter(option))):
            ascend(lambda x: x.sum(1), inputs, ball, generator=torch.Generator(), **option)
