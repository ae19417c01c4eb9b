"""CROWN-IBP and GOOD: their bounds are those of `bounds`, hold where attacks search, and can be learnt."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat import data
from caveat.attacks import LOSSES, Ball, pgd
from caveat.bounds import bounds
from caveat.bounds.confidence import guaranteed_auroc, highest_confidence
from caveat.data.outliers import taken_from
from caveat.errors import DataError, ModelError, OptionError
from caveat.objectives import CrownIbp, Good, Ibp, OutlierExposure
from caveat.objectives._backward import worst_by_lines
from caveat.objectives._intervals import Boxed, boxed, differences, layers_of, worst_logits
from caveat.training import recipe


def built(*layers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(*(make() for make in layers)).double().eval()


NETS = {
    "relu": built(
        lambda: nn.Conv2d(1, 3, 3, padding=1), nn.ReLU, lambda: nn.Conv2d(3, 4, 3, stride=2, bias=False),
        lambda: nn.LeakyReLU(0.1), nn.Flatten, lambda: nn.Linear(36, 8), nn.ReLU, lambda: nn.Linear(8, 3),
    ),
    "pooled": built(
        lambda: nn.ZeroPad2d(1), lambda: nn.Conv2d(1, 3, 3), lambda: nn.BatchNorm2d(3), nn.ReLU,
        lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2), nn.Flatten, lambda: nn.Dropout(0.5),
        lambda: nn.Linear(12, 6), nn.Sigmoid, lambda: nn.Sequential(nn.Identity(), nn.Linear(6, 3, bias=False)),
    ),
    "tanh": built(nn.Flatten, lambda: nn.Linear(64, 6), nn.Tanh, lambda: nn.Linear(6, 3)),
}  # fmt: skip


def walked(net, inputs, radius):
    layers, head = layers_of(net)
    values = [Boxed.around(inputs, radius)]
    for layer in layers:
        values.append(boxed(layer, values[-1]))
    return layers, head, values


@pytest.fixture
def inputs(generator):
    return torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)


LABELS = torch.arange(6) % 3


@pytest.mark.parametrize("name", NETS)
def test_bounds_enclose_those_of_deeppoly_and_equal_those_of_intervals(name, inputs):
    net, ball = NETS[name], Ball(math.inf, 0.05, 0, 1)
    layers, head, values = walked(net, inputs, 0.05)
    low, _ = bounds(net, inputs, ball, outputs="margins", labels=LABELS)
    loose, _ = bounds(net, inputs, ball, method="interval", outputs="margins", labels=LABELS)
    others = torch.ones(6, 3, dtype=torch.bool).scatter(1, LABELS[:, None], False)
    lines = worst_by_lines(layers, head, values, LABELS)
    assert bool((lines.gather(1, LABELS[:, None]) == 0).all())
    mine = -lines[others].view(6, 2)
    assert bool((mine <= low + 1e-9).all())
    by_intervals = -worst_logits(head, values[-1], LABELS)[others].view(6, 2)
    torch.testing.assert_close(by_intervals, loose, atol=1e-9, rtol=0)
    assert float((mine - by_intervals).detach().mean()) > 1e-3  # one pass back is worth it
    apart = differences(head, values[-1])
    torch.testing.assert_close(apart.gather(2, LABELS.view(6, 1, 1).expand(6, 3, 1)).squeeze(2)[others].view(6, 2),
                               -loose, atol=1e-9, rtol=0)  # fmt: skip


def test_with_one_layer_of_relus_the_lines_are_those_of_deeppoly(inputs):
    net = built(nn.Flatten, lambda: nn.Linear(64, 9), nn.ReLU, lambda: nn.Linear(9, 3))
    layers, head, values = walked(net, inputs, 0.05)
    least, _ = bounds(net, inputs, Ball(math.inf, 0.05, 0, 1), outputs="margins", labels=LABELS)
    others = torch.ones(6, 3, dtype=torch.bool).scatter(1, LABELS[:, None], False)
    mine = torch.maximum(
        -worst_by_lines(layers, head, values, LABELS), -worst_logits(head, values[-1], LABELS)
    )  # deeppoly takes the better of both
    torch.testing.assert_close(mine[others].view(6, 2), least, atol=1e-9, rtol=0)


def scaled(net, factor):
    """The same layers, the last one's weights larger: confident enough that bounds matter."""
    found = copy.deepcopy(net)
    with torch.no_grad():
        for weight in layers_of(found)[1].parameters():
            weight *= factor
    return found


def test_no_attack_is_worse_than_the_objective_says(inputs, generator):
    """CROWN-IBP on labels, GOOD on the confidence around outliers: what 20 restarts of PGD find is below the bound."""
    net, ball = scaled(NETS["relu"], 10), Ball(math.inf, 0.1, 0, 1)
    for share in (0.0, 0.5, 1.0):
        found = pgd(net, inputs, LABELS, ball, generator=generator, steps=10, restarts=20)
        bound = CrownIbp(radius=0.1, weight=1, share=share)(net, inputs, LABELS, generator)
        assert bool(functional.cross_entropy(net(found), LABELS) <= bound)
    found = pgd(net, inputs, LABELS, ball, generator=generator, steps=10, restarts=20, loss=LOSSES["confidence"])
    for method in ("interval", "deeppoly"):
        highest = highest_confidence(net, inputs, ball, method=method)
        assert bool((net(found).softmax(1).amax(1) <= highest).all())
    spread = net(found).amax(1) - net(found).amin(1)
    good = Good(weight=1, radius=0.1, outliers=lambda *_: inputs)
    reached = functional.cross_entropy(net(inputs), LABELS) + (spread.square() / 2).log1p().mean()
    assert bool(reached <= good(net, inputs, LABELS, generator))


def test_good_by_hand(inputs, generator):
    net = NETS["relu"]
    low, high = bounds(
        net, inputs, Ball(math.inf, 0.1, 0, 1), method="interval",
        outputs=(torch.eye(3)[:, None] - torch.eye(3)).flatten(0, 1),
    )  # fmt: skip
    assert bool((low <= high).all())
    above = high.view(6, 9).amax(1)
    clean = net(inputs).amax(1) - net(inputs).amin(1)
    plain = functional.cross_entropy(net(inputs), LABELS)
    for quantile, count in ((1.0, 6), (0.5, 3), (0.4, 2), (0.0, 0)):
        ranked = above.argsort()
        kept = torch.cat([above[ranked[:count]], clean[ranked[count:]]])
        expected = plain + 0.7 * (1 + kept**2 / 2).log().mean()
        good = Good(weight=0.7, radius=0.1, quantile=quantile, outliers=lambda *_: inputs)
        torch.testing.assert_close(good(net, inputs, LABELS, generator), expected, atol=1e-8, rtol=0)


def test_batch_norm_sees_both_and_boxes_only_of_outliers(inputs, generator):
    net, other = (copy.deepcopy(NETS["pooled"]) for _ in range(2))
    net[2].train(), other[2].train()
    outliers = 1 - inputs[:4]  # fewer than inputs, as a recipe may give
    Good(radius=0.1, outliers=lambda *_: outliers)(net, inputs, LABELS, generator)
    other(torch.cat([inputs, outliers]))
    assert all(torch.equal(one, two) for one, two in zip(net.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("goal", [CrownIbp(radius=0.05, share=0.7), Good(radius=0.05, quantile=0.5)])
def test_gradients_are_those_of_finite_differences(name, goal, inputs):
    net = scaled(NETS[name], 3)

    def value():
        return goal(net, inputs, LABELS, torch.Generator().manual_seed(3))

    weights = [weight for weight in net.parameters() if weight.ndim > 1]
    gradients = torch.autograd.grad(value(), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert bool(gradient.isfinite().all())
        place = tuple(0 for _ in weight.shape)
        with torch.no_grad():
            weight[place] += 1e-6
            up = value()
            weight[place] -= 2e-6
            down = value()
            weight[place] += 1e-6
        assert gradient[place].item() == pytest.approx((up - down).item() / 2e-6, rel=1e-4, abs=1e-7)


def test_dead_units_have_a_gradient_that_is_a_number():
    """Boxes of no width: the line through their ends must not be divided by 0, whichever way is taken."""
    net = built(nn.Flatten, lambda: nn.Linear(4, 3), nn.ReLU, lambda: nn.Linear(3, 3), nn.ReLU, lambda: nn.Linear(3, 2))
    for dtype in (torch.float64, torch.float32):
        dead = copy.deepcopy(net).to(dtype)
        with torch.no_grad():
            dead[1].bias -= 100
        CrownIbp(weight=1)(dead, torch.rand(5, 1, 2, 2).to(dtype), torch.arange(5) % 2, torch.Generator()).backward()
        assert all(weight.grad.isfinite().all() for weight in dead.parameters() if weight.grad is not None)


def test_schedules():
    phases = CrownIbp(radius=0.3, weight=0.6, last=0.2).phases(10)
    assert sum(count for _, count in phases) == 10
    assert phases[-1] == (CrownIbp(radius=0.3, weight=0.6, share=0.2, last=0.2), 5)
    assert [round(aim.radius, 3) for aim, _ in phases] == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert [round(aim.share, 3) for aim, _ in phases] == [0.867, 0.733, 0.6, 0.467, 0.333, 0.2]
    assert CrownIbp().phases(1) == [(CrownIbp(share=0.0), 1)]
    phases = Good().phases(8)
    assert phases[-1] == (Good(), 4)
    assert [round(aim.weight, 3) for aim, _ in phases] == [0, 0.075, 0.15, 0.225, 0.3]
    assert [round(aim.radius, 3) for aim, _ in phases] == [0, 0, 0.075, 0.15, 0.3]
    for epochs in (1, 2, 3):
        assert [sum(count for _, count in Good().phases(epochs)), Good().phases(epochs)[-1][0]] == [epochs, Good()]


def test_they_teach_what_can_be_certified():
    """On digits of 8x8: IBP-certified accuracy after CROWN-IBP, guaranteed AUROC after GOOD, none without."""
    train, (inputs, labels) = data.load("digits:train"), next(iter(data.load("digits:test", batch=200)))
    outliers = taken_from(torch.cat([blobs for blobs, _ in data.load("blobs", like=train)]))
    strange = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    found = {}
    goals = {"crown": CrownIbp(radius=0.1), "good": Good(radius=0.2, outliers=outliers),
             "exposed": OutlierExposure(outliers=outliers)}  # fmt: skip
    for name, goal in goals.items():
        generator = torch.Generator().manual_seed(0)
        net = built(nn.Flatten, lambda: nn.Linear(64, 64), nn.ReLU, lambda: nn.Linear(64, 10)).float()
        recipe.train(net, train, epochs=8, rate=0.01, batch=64, generator=generator, goal=goal)
        with torch.no_grad():
            known = net.eval()(inputs).softmax(1).amax(1)
            right = float((net(inputs).argmax(1) == labels).double().mean())
        ball = Ball(math.inf, 0.1, 0, 1)
        low, _ = bounds(net, inputs, ball, method="interval", outputs="margins", labels=labels)
        highest = highest_confidence(net, strange, ball.resized(0.3), method="interval")
        found[name] = right, float((low > 0).all(1).double().mean()), float(guaranteed_auroc(known, highest))
    assert min(right for right, _, _ in found.values()) > 0.85
    assert found["crown"][1] > 0.35 > 0.1 > found["exposed"][1]
    assert found["good"][2] > 0.9 > 0.3 > found["exposed"][2]


def test_what_cannot_be_is_refused(inputs, generator):
    for options in ({"radius": 1.0}, {"weight": 1.5}, {"share": -0.1}, {"last": 2}):
        with pytest.raises(OptionError, match=f"^{next(iter(options))}: expected"):
            CrownIbp(**options)
    for options in ({"radius": 1.0}, {"weight": -1}, {"quantile": 1.1}):
        with pytest.raises(OptionError, match=f"^{next(iter(options))}: expected"):
            Good(**options)
    flat = nn.Sequential(nn.Flatten(), nn.ELU(), nn.Linear(64, 3)).double()
    with pytest.raises(ModelError, match="no rule for ELU; ibp takes more"):
        CrownIbp()(flat, inputs, LABELS, generator)
    same = nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.Flatten(), nn.Linear(64, 3)).double()
    with pytest.raises(ModelError, match=r"padding in numbers.*no rule for Conv2d"):
        CrownIbp()(same, inputs, LABELS, generator)
    assert Ibp()(flat, inputs, LABELS, generator).isfinite()
    for goal in (CrownIbp(), Good()):
        with pytest.raises(ModelError, match="ends in a linear layer, got Linear"):
            goal(nn.Linear(8, 3).double(), inputs, LABELS, generator)
    with pytest.raises(DataError, match=r"expected values in \[0, 1\]"):
        CrownIbp()(NETS["relu"], 2 * inputs, LABELS, generator)
    with pytest.raises(DataError, match=r"expected values in \[0, 1\]"):
        Good(outliers=lambda *_: 2 * inputs)(NETS["relu"], inputs, LABELS, generator)
