"""The ball: projections against conditions of optimality, furthest points against a linear programme, uniformity."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from tests.conftest import shapes_unchecked

from caveat.attacks import Ball
from caveat.errors import DataError, OptionError

NORMS = (1, 2, math.inf)
BOXES = ((0.0, 1.0), (None, None), (0.0, None), (None, 0.7))
cases = {
    "norm": st.sampled_from(NORMS),
    "box": st.sampled_from(BOXES),
    "radius": st.sampled_from((1e-3, 0.05, 0.3, 1.0, 4.0)),
    "seed": st.integers(0, 2**31),
}


def drawn(box, seed, *, n=4, shape=(3, 5), dtype=torch.float64):
    """Centres in the box, some of them on its faces, and points anywhere."""
    generator = torch.Generator().manual_seed(seed)
    low, high = box
    centres = torch.rand(n, *shape, generator=generator, dtype=dtype) * 1.4 - 0.2
    centres = centres.clamp(0.0 if low is None else low, 1.0 if high is None else high)
    points = centres + torch.randn(n, *shape, generator=generator, dtype=dtype)
    points[0] = centres[0] + 1e-4 * (points[0] - centres[0])
    return centres, points


def inside(ball, points, centres):
    tight = 8 * torch.finfo(points.dtype).eps
    limit = ball.radius * (1 + tight) + tight * centres.flatten(1).abs().amax(1)  # a sum rounds in the point's units
    if ball.norm == 1:
        limit = limit + tight * centres.flatten(1).abs().sum(1)
    assert (ball.distance(points, centres) <= limit).all()
    assert ball.low is None or (points >= ball.low).all()
    assert ball.high is None or (points <= ball.high).all()


@given(**cases)
def test_a_projection_is_in_ball_and_box(norm, box, radius, seed):
    for dtype in (torch.float64, torch.float32):
        centres, points = drawn(box, seed, dtype=dtype)
        ball = Ball(norm, radius, *box)
        inside(ball, ball.project(points, centres), centres)
        inside(ball, ball.furthest(centres, points - centres), centres)
        inside(ball, ball.sample(centres, torch.Generator().manual_seed(seed)), centres)


@given(**cases)
def test_no_other_point_is_nearer(norm, box, radius, seed):
    """The projection P of v onto a convex set is the point with <v - P, z - P> <= 0 for every z of the set."""
    centres, points = drawn(box, seed)
    ball = Ball(norm, radius, *box)
    found = ball.project(points, centres)
    away = (points - found).flatten(1)
    corner = ball.furthest(centres, points - found)  # the z for which the left side is largest
    for other in (corner, centres, ball.sample(centres, torch.Generator().manual_seed(seed))):
        assert ((away * (other - found).flatten(1)).sum(1) <= 1e-9 * (1 + away.norm(dim=1))).all()


@given(**cases)
def test_a_projection_projected_is_itself(norm, box, radius, seed):
    centres, points = drawn(box, seed)
    ball = Ball(norm, radius, *box)
    once = ball.project(points, centres)
    torch.testing.assert_close(ball.project(once, centres), once, rtol=0, atol=1e-12)


@given(**cases)
def test_a_projector_gives_what_a_fresh_one_gives_whatever_it_projected_before(norm, box, radius, seed):
    """Far, near and inside by turns: where the last projection ended is only where the next one begins to look."""
    centres, points = drawn(box, seed)
    ball = Ball(norm, radius, *box)
    project = ball.projector(centres)
    for share in (1.0, 30.0, 1e-6, 0.3, 1e-6, 2.0):
        there = centres + share * (points - centres)
        torch.testing.assert_close(project(there), ball.project(there, centres), rtol=0, atol=1e-12)


@given(**cases)
def test_within_radii_of_their_own_samples_are_projected_as_by_balls_of_these(norm, box, radius, seed):
    centres, points = drawn(box, seed)
    radii = radius * torch.tensor([0.5, 1.0, 3.0, math.inf], dtype=torch.float64)
    found = Ball(norm, 0.0, *box).within(points, centres, radii)
    for i, own in enumerate(radii.tolist()):
        ball = Ball(norm, min(own, 1e3), *box)
        one = found[i : i + 1], centres[i : i + 1]
        inside(ball, *one)
        if norm != 2:
            near = ball.project(points[i : i + 1], one[1])
            torch.testing.assert_close(one[0], near, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
def test_clipping_before_or_after_is_not_the_projection(norm):
    """By hand, from the corner (0, 0) towards (2, 1) with radius 1.2 in the unit box.

    Norm 1: the sum of max(v - t, 0) clipped to 1 is 1.2 at t = 0.8: (1, 0.2). Clipped first it would be (0.6, 0.6).
    Norm 2: t v clipped to 1 has length 1.2 at second value sqrt(0.44) = 0.6633; clipped first (0.849, 0.849).
    """
    ball = Ball(norm, 1.2)
    found = ball.project(torch.tensor([[2.0, 1.0]]).double(), torch.zeros(1, 2).double())
    expected = [1.0, 0.2] if norm == 1 else [1.0, 0.44**0.5]
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 2**31), radius=st.sampled_from((0.1, 0.7, 2.0)))
def test_the_furthest_point_solves_the_linear_programme(seed, radius):
    """Of norm 1 as a linear programme in the positive and the negative part of the change."""
    centres, points = drawn((0.0, 1.0), seed, n=1, shape=(6,))
    gradient = (points - centres)[0]
    moved = Ball(1, radius).furthest(centres, gradient[None])[0] - centres[0]
    bounds = [(0, float(1 - value)) for value in centres[0]] + [(0, float(value)) for value in centres[0]]
    best = linprog(torch.cat([-gradient, gradient]).numpy(), A_ub=[[1.0] * 12], b_ub=[radius], bounds=bounds)
    assert float(moved @ gradient) == pytest.approx(-best.fun, abs=1e-9)


@given(seed=st.integers(0, 2**31), radius=st.sampled_from((0.1, 0.7, 2.0, 9.0)))
def test_the_furthest_point_of_norm_2_is_optimal(seed, radius):
    """The furthest point along g is the projection of centre + t g for every t that is large enough."""
    centres, points = drawn((0.0, 1.0), seed)
    ball, gradient = Ball(2, radius), points - centres
    far = ball.project(centres + 1e7 * gradient, centres)
    torch.testing.assert_close(ball.furthest(centres, gradient), far, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("gradient", [0.0, 1e-30, 1e30])
def test_gradients_of_any_size(norm, gradient):
    centres = torch.full((2, 3), 0.5)
    moved = Ball(norm, 0.2).furthest(centres, torch.tensor([[gradient, 0, 0], [0, 0, 0]]))
    assert float(moved[0, 0]) == pytest.approx(0.7 if gradient else 0.5)
    assert torch.equal(moved[:, 1:], centres[:, 1:])


@pytest.mark.parametrize("norm", NORMS)
def test_samples_are_uniform(norm):
    """In d dimensions the share within t radius is t^d; every direction is as likely as its opposite."""
    d, ball = 3, Ball(norm, 2.0, None, None)
    points = ball.sample(torch.zeros(20_000, d), torch.Generator().manual_seed(1))
    norms = ball.distance(points, torch.zeros_like(points)) / ball.radius
    assert float(norms.max()) <= 1 + 1e-6
    for t in (0.3, 0.6, 0.9):
        assert float((norms < t).float().mean()) == pytest.approx(t**d, abs=0.015)
    assert points.mean(0).abs().max() < 0.03
    volume = {1: 4**d / math.factorial(d), 2: 4 / 3 * math.pi * 2**d, math.inf: 4**d}[norm]
    share = float((points.abs().amax(1) < 0.6).double().mean())  # a cube that lies in all three balls
    assert share == pytest.approx(1.2**d / volume, rel=0.1)


@pytest.mark.parametrize(
    ("norm", "expected"), [(1, (0.375, -0.5, 0.0)), (2, (0.3, -0.4, 0.0)), (math.inf, (0.5, -0.5, 0.0))]
)
def test_a_step_has_its_length_whatever_the_size_of_the_gradient(norm, expected):
    """Along (3, -4, 0), by 0.5: the largest value by that much, the Euclidean norm, or every value."""
    points = torch.full((3, 1, 3), 0.5).double()
    gradient = torch.tensor([3.0, -4.0, 0.0]).double() * torch.tensor([1.0, 1e-6, 1e6])[:, None, None]
    moved = Ball(norm, 0.1).step(points, gradient, 0.5) - points
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64).expand(3, 1, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_of_0_keeps_the_inputs(norm):
    centres, points = drawn((0.0, 1.0), 3)
    ball = Ball(norm, 0.0)
    for found in (ball.project(points, centres), ball.furthest(centres, points)):
        assert torch.equal(found, centres)


@pytest.mark.parametrize("norm", NORMS)
def test_an_input_outside_by_rounding_stays_where_it_is(norm):
    centres = torch.tensor([[1 + 2e-7, -1e-8, 0.5]])
    ball = Ball(norm, 0.1)
    ball.check(centres)
    moved = ball.furthest(centres, torch.tensor([[1.0, -1.0, 1e-3]]))
    assert torch.equal(moved[0, :2], centres[0, :2])
    assert float(moved[0, 2]) == pytest.approx(0.6)


def test_errors_teach():
    with pytest.raises(OptionError, match="norm: expected 1, 2 or inf, got 3"):
        Ball(3, 0.1)
    with pytest.raises(OptionError, match="radius: expected a finite number >= 0, got -1"):
        Ball(2, -1)
    with pytest.raises(OptionError, match="low < high"):
        Ball(2, 1, 1.0, 0.0)
    with pytest.raises(DataError, match=r"values in \[0, 1\], the ball's box, got -1 to 2"):
        Ball(2, 1).check(torch.tensor([[-1.0, 2.0]]))
    with pytest.raises(DataError):
        Ball(2, 1).check(torch.tensor([[math.nan]]))


@pytest.mark.parametrize("name", ["norm", "radius", "low", "high"])
@pytest.mark.parametrize("wrong", ["0.5", True, torch.tensor(0.5)])
def test_a_ball_is_made_of_numbers(name, wrong):
    given = {"norm": math.inf, "radius": 0.1, "low": 0, "high": 1} | {name: wrong}
    with shapes_unchecked(), pytest.raises(OptionError, match=rf"{name}: expected a number, got "):
        Ball(**given)
