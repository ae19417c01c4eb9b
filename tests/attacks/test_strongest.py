"""The ensemble, the bisected radius, Square and turned pictures, against what is known of linear networks."""

import math

import pytest
import torch
from tests.attacks.test_masking import INPUTS, LABELS, ROUNDINGS, Behind
from tests.conftest import shapes_unchecked
from torch import nn

from caveat.attacks import IN_BALL, Ball, apgd, pgd, smallest_radius, spatial, square, strongest
from caveat.attacks.transformation import Transformation, applied
from caveat.errors import DataError, OptionError

QUICK = {"steps": 15, "queries": 60}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(classes, d=12, n=40):
    model = nn.Linear(d, classes).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, d, generator=seeded(), dtype=torch.float64))
    inputs = torch.rand(n, d, generator=seeded(1), dtype=torch.float64)
    return model, inputs, model(inputs).argmax(1)


def borders(model, inputs, labels, norm):
    """How far the nearest border is, in closed form."""
    with torch.no_grad():
        logits = model(inputs)
        dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
        size = torch.linalg.vector_norm(model.weight[None] - model.weight[labels][:, None], dual, dim=2)
        return ((logits.gather(1, labels[:, None]) - logits) / size).masked_fill(size == 0, torch.inf).amin(1)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_strongest_breaks_what_can_be_broken_and_nothing_else(norm, classes):
    model, inputs, labels = linear(classes)
    labels[:2] = (labels[:2] + 1) % classes  # wrong from the start
    distance = borders(model, inputs, labels, norm)
    radius = float(distance[2:].median()) * 1.001
    found = strongest(model, inputs, labels, Ball(norm, radius, None, None), generator=seeded(), **QUICK)
    assert torch.equal(found.broken, distance < radius)
    assert found.by[:2] == ["none", "none"]
    assert {name != "" for name in found.by} == {True, False}
    assert torch.equal(torch.tensor([name != "" for name in found.by]), found.broken)
    assert torch.equal(model(found.inputs).argmax(1) != labels, found.broken)
    assert (Ball(norm, radius).distance(found.inputs, inputs) <= radius + 1e-9).all()
    assert found.notes == ()


class Odd(nn.Module):
    """A linear network whose answers are spoilt in one way."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = Behind(lambda x: x), change
        self.eval()

    def forward(self, inputs):
        return self.change(self.inner(inputs))


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (Behind(ROUNDINGS["round"]), "gradient with respect to the input is zero"),
        (Behind(ROUNDINGS["detached"]), "gradient with respect to the input is zero"),
        (Odd(lambda z: (z / 10).softmax(1)), "look like probabilities"),
        (Odd(lambda z: 1e5 * z), "differ by up to"),
        (Odd(lambda z: z + 0.1 * torch.rand_like(z)), "the network is random"),
    ],
)
def test_a_network_that_only_looks_robust_is_broken_with_a_note(model, note):
    with torch.random.fork_rng(devices=[]):
        found = strongest(model, INPUTS[:6], LABELS[:6], Ball(math.inf, 0.2), generator=seeded(), **QUICK)
    assert any(note in sentence for sentence in found.notes), found.notes
    assert found.broken.all()


def test_a_saturated_network_is_not_called_robust_without_a_note():
    """Its values change at the border alone, so that nothing but a lucky guess finds it."""
    model = Odd(lambda z: (100 * z).softmax(1))
    found = strongest(model, INPUTS[:6], LABELS[:6], Ball(math.inf, 0.2), generator=seeded(), **QUICK)
    assert ["gradient with respect" in found.notes[0], "like probabilities" in found.notes[1]] == [True, True]


def test_square_alone_finds_what_the_others_leave_and_that_is_noted():
    model = Behind(lambda x: x.clamp(0.35, 0.65) + 0 * x)
    inputs = torch.where(LABELS[:4, None, None, None] == 1, 0.7, 0.3).expand(4, 1, 4, 4).clone()
    found = strongest(model, inputs, LABELS[:4], Ball(math.inf, 0.3), generator=seeded(), **QUICK)
    assert found.broken.all()
    assert found.notes


def test_errors_teach():
    model, inputs, labels = linear(3)
    ball = Ball(2, 0.1)
    with pytest.raises(OptionError, match="did you mean 'square'"):
        strongest(model, inputs, labels, ball, generator=seeded(), members=["sqare"])
    with pytest.raises(OptionError, match="members: expected some"):
        strongest(model, inputs, labels, ball, generator=seeded(), members=[])
    with pytest.raises(OptionError, match="rounds: expected at least 1"):
        smallest_radius(model, inputs, labels, ball, generator=seeded(), rounds=0)
    with pytest.raises(OptionError, match="queries, area"):
        square(model, inputs, labels, ball, generator=seeded(), area=0)
    with pytest.raises(OptionError, match="restarts: expected"):
        apgd(model, inputs, labels, ball, generator=seeded(), restarts=0)
    with shapes_unchecked(), pytest.raises(DataError, match="expected pictures"):
        spatial(model, inputs, labels, Transformation(rotate=5), generator=seeded())
    with pytest.raises(OptionError, match="poses, tries: expected at least 1"):
        spatial(model, torch.rand(40, 1, 3, 4).double(), labels, Transformation(rotate=5), generator=seeded(), poses=0)
    with pytest.raises(OptionError, match="transformation: expected a range"):
        spatial(model, torch.rand(40, 1, 3, 4).double(), labels, Transformation(), generator=seeded())
    assert strongest(model, inputs[:0], labels[:0], ball, generator=seeded()).broken.shape == (0,)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_the_smallest_radius_of_a_linear_network(name):
    """Known to the ball's over 2^6; what stands in the whole ball is given back."""
    model, inputs, labels = linear(2)
    labels[0] = 1 - labels[0]
    for norm in (2, math.inf):
        distance = borders(model, inputs, labels, norm)
        largest = float(distance.quantile(0.8))
        found = smallest_radius(
            model,
            inputs,
            labels,
            Ball(norm, largest, None, None),
            generator=seeded(),
            rounds=6,
            attack=IN_BALL[name],
        )
        near = {2: found.l2, math.inf: found.linf}[norm]
        assert torch.equal(found.success, distance < largest)
        assert near[0] == 0
        rows = found.success & (distance > 0)
        assert (near[rows] >= distance[rows] - 1e-9).all()
        assert (near[rows] <= distance[rows] + 1.01 * largest / 2**6).all()
        assert torch.equal(found.inputs[~found.success], inputs[~found.success])


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_square_asks_for_values_alone_and_turns_a_rounding_network(norm):
    model, passes = Behind(ROUNDINGS["detached"]), []
    model.register_forward_pre_hook(lambda _, inputs: passes.append((len(inputs[0]), torch.is_grad_enabled())))
    radius = {1: 6.0, 2: 1.2, math.inf: 0.3}[norm]
    found = square(model, INPUTS[:8], LABELS[:8], Ball(norm, radius), generator=seeded(), queries=400)
    assert not any(grad for _, grad in passes)
    assert passes[-1][0] <= 8 <= passes[0][0]
    assert (model(found).argmax(1) != LABELS[:8]).all()


def test_pgd_and_apgd_agree_on_a_linear_network():
    model, inputs, labels = linear(2)
    ball = Ball(2, 0.2)
    ends = [attack(model, inputs, labels, ball, generator=seeded(), steps=60) for attack in (pgd, apgd)]
    torch.testing.assert_close(*(model(x).diff(dim=1) for x in ends), rtol=1e-3, atol=1e-3)


class TestSpatial:
    def test_turning_and_shifting_by_hand(self):
        """A quarter turn to the left brings the right edge to the top; one pixel to the right moves the columns."""
        picture = torch.arange(9.0).reshape(1, 1, 3, 3)
        quarter = torch.tensor([[90.0, 0, 0, 0, 0, 0, 0]])
        torch.testing.assert_close(applied(picture, quarter), picture.rot90(1, (2, 3)), rtol=0, atol=1e-4)
        right = applied(picture, torch.tensor([[0.0, 1, 0, 0, 0, 0, 0]]))
        torch.testing.assert_close(right[..., 1:], picture[..., :-1], rtol=0, atol=1e-5)
        assert (right[..., 0].abs() < 1e-5).all()
        down = applied(picture, torch.tensor([[0.0, 0, 1, 0, 0, 0, 0]]))
        torch.testing.assert_close(down[..., 1:, :], picture[..., :-1, :], rtol=0, atol=1e-5)

    def test_finds_the_shift_that_changes_the_answer(self):
        """The answer is 1 where the left column is bright: one pixel to the right is enough, and a turn of 5 is not."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).eval()
        with torch.no_grad():
            weight = torch.zeros(5, 5)
            weight[:, 0] = 1
            model[1].weight.copy_(torch.stack([-weight.flatten(), weight.flatten()]))
            model[1].bias.copy_(torch.tensor([2.0, -2.0]))
        inputs, labels = torch.zeros(3, 1, 5, 5), torch.ones(3, dtype=torch.long)
        inputs[..., 0] = 1
        shift = Transformation(right=1, down=1)
        found = spatial(model, inputs, labels, shift, generator=seeded(), poses=9, tries=0)
        assert found.success.all()
        assert (found.parameters[:, 1].abs() == 1).all()
        assert torch.equal(applied(inputs, found.parameters), found.inputs)
        assert (model(found.inputs).argmax(1) == 0).all()
        turn = Transformation(rotate=5)
        still = spatial(model, inputs, labels, turn, generator=seeded(), poses=3, tries=4)
        assert not still.success.any()
        again = spatial(model, inputs, labels, turn, generator=seeded(), poses=3, tries=4)
        assert torch.equal(still.parameters, again.parameters)
        worst = spatial(model, inputs, 1 - labels, Transformation(right=(1, 2)), generator=seeded(), poses=3, tries=0)
        assert not worst.success.any(), "the picture as it is is none of these"

    @pytest.mark.parametrize("poses", [1, 2, 9, 125])
    def test_the_grid_is_no_larger_than_asked_and_holds_the_middle_and_the_ends(self, poses):
        """Each transformed picture is one forward pass: the constant network is never wrong, so that all are tried."""
        seen = []

        class Constant(nn.Module):
            def forward(self, inputs):
                seen.append(inputs)
                return inputs.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0])

        picture, labels = torch.rand(1, 1, 4, 4, generator=seeded()), torch.zeros(1, dtype=torch.long)
        limits = Transformation(right=1, down=1)
        spatial(Constant().eval(), picture, labels, limits, generator=seeded(), poses=poses, tries=0)
        assert {1: 2, 2: 2, 9: 10, 125: 122}[poses] == len(seen)
        assert torch.equal(seen[0], picture)
        corner = applied(picture, torch.tensor([[0.0, 1, 1, 0, 0, 0, 0]]))
        assert poses < 9 or any(torch.equal(one, corner) for one in seen)
