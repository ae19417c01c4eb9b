import math

import pytest
import torch
from torch import nn

from caveat.attacks import Ball, apgd, constant, cosine, fgsm, from_inputs, losses, pgd, uniform
from caveat.errors import OptionError


def network(seed=0, *, d=8, c=4):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, c)).double().eval()
    inputs = torch.rand(60, d, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
        model[2].bias -= model(inputs).mean(0)
    return model, inputs, model(inputs).argmax(1)


def test_pgd_does_more_harm_than_fgsm():
    model, inputs, labels = network()
    ball = Ball(math.inf, 0.1)
    harm = {
        attack: losses.margin(model(attack(model, inputs, labels, ball, generator=torch.Generator())), labels).mean()
        for attack in (fgsm, pgd)
    }
    assert harm[pgd] > harm[fgsm] > losses.margin(model(inputs), labels).mean()


def test_targeted_goes_where_it_is_told():
    model, inputs, labels = network()
    targets = (labels + 1) % 4
    ball = Ball(2, 0.8)
    moved = pgd(model, inputs, targets, ball, generator=torch.Generator(), targeted=True)
    away = pgd(model, inputs, labels, ball, generator=torch.Generator())
    hits, wandered = ((model(x).argmax(1) == targets).double().mean() for x in (moved, away))
    assert hits > wandered + 0.2


def test_skipping_what_is_broken_breaks_the_same_answers():
    model, inputs, labels = network()
    labels = labels.clone()
    labels[:5] = (labels[:5] + 1) % 4  # wrong from the start
    ball, options = Ball(math.inf, 0.08), {"steps": 6, "restarts": 5}
    full, lazy = (
        pgd(model, inputs, labels, ball, generator=torch.Generator().manual_seed(2), skip_broken=skip, **options)
        for skip in (False, True)
    )
    broken = [model(x).argmax(1) != labels for x in (full, lazy)]
    assert (broken[0] <= broken[1]).all()
    harm = [losses.margin(model(x), labels) for x in (full, lazy)]
    assert torch.equal(full[~broken[1]], lazy[~broken[1]])
    assert (harm[0] >= harm[1] - 1e-12).all()
    assert (harm[0] > harm[1] + 1e-6).any()


def test_skipping_saves_passes():
    model, inputs, labels = network()
    shown = []
    handle = model.register_forward_pre_hook(lambda _, arguments: shown.append(len(arguments[0])))
    for skip in (False, True):
        pgd(model, inputs, labels, Ball(math.inf, 0.3), generator=torch.Generator(), restarts=4, skip_broken=skip)
        shown.append(0)
    handle.remove()
    middle = shown.index(0)
    assert sum(shown[middle:]) < 0.5 * sum(shown[:middle])


def test_a_sure_network_is_no_shelter():
    """Logits times 200: cross-entropy and its gradient are 0 in float32 for most samples, log odds are not."""
    model, inputs, labels = network()
    model, inputs = model.float(), inputs.float()
    with torch.no_grad():
        model[2].weight *= 200
        model[2].bias *= 200
    ball, options = Ball(math.inf, 0.15), {"generator": torch.Generator(), "start": from_inputs}
    naive = pgd(
        model, inputs, labels, ball, loss=lambda z, y: nn.functional.cross_entropy(z, y, reduction="none"), **options
    )
    ours = pgd(model, inputs, labels, ball, **options)
    broken = [float((model(x).argmax(1) != labels).float().mean()) for x in (naive, ours)]
    assert broken[1] > broken[0] + 0.1


def test_momentum_schedule_and_start_are_used():
    model, inputs, labels = network()
    ball = Ball(2, 0.3)

    def run(**options):
        return pgd(model, inputs, labels, ball, generator=torch.Generator().manual_seed(1), steps=5, **options)

    plain = run()
    for options in ({"momentum": 0.9}, {"schedule": lambda share: 0.1}, {"start": from_inputs}, {"step": 0.01}):
        assert not torch.equal(run(**options), plain)


@pytest.mark.parametrize(
    ("norm", "steps", "schedule", "length"),
    [
        (1, 5, constant, 0.2), (1, 50, constant, 0.04), (2, 5, constant, 0.2), (2, 50, constant, 0.02),
        (math.inf, 50, constant, 0.02), (1, 50, cosine, 0.1), (2, 5, cosine, 0.4), (math.inf, 50, cosine, 0.4),
    ],
)  # fmt: skip
def test_without_a_step_it_is_a_share_of_the_radius(norm, steps, schedule, length):
    """Of radius 0.4: all of it, a quarter for norm 1; constant 2.5 radius / steps, for norm 1 at least radius / 10."""
    model, shown = nn.Linear(2, 2, bias=False).double().eval(), []
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))  # away from class 0 is along the first value
    model.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0].detach()))
    centre, ball = torch.zeros(1, 2).double(), Ball(norm, 0.4, None, None)
    options = {"steps": steps, "start": from_inputs, "schedule": schedule}
    pgd(model, centre, torch.tensor([0]), ball, generator=torch.Generator(), **options)
    nearest = min(float(x[0, 0]) for x in shown[1:2])
    assert nearest == pytest.approx(length)


def test_the_last_point_costs_two_forward_passes_less():
    model, inputs, labels = network()
    ball, shown = Ball(2, 0.3), []
    handle = model.register_forward_pre_hook(lambda _, arguments: shown.append(torch.is_grad_enabled()))
    options = {"steps": 5, "step": 0.2}
    best = pgd(model, inputs, labels, ball, generator=torch.Generator().manual_seed(1), **options)
    assert (shown.count(True), shown.count(False)) == (5, 2)
    shown.clear()
    last = pgd(model, inputs, labels, ball, generator=torch.Generator().manual_seed(1), best=False, **options)
    handle.remove()
    assert (shown.count(True), shown.count(False)) == (5, 0)
    assert (ball.distance(last, inputs) <= 0.3 + 1e-12).all()
    harm = [losses.log_odds(model(x), labels) for x in (best, last)]
    assert (harm[0] >= harm[1]).all()
    assert torch.equal(best, last) == torch.equal(*harm)
    for wrong in ({"restarts": 2}, {"skip_broken": True}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            pgd(model, inputs, labels, ball, generator=torch.Generator(), best=False, **wrong)


def test_fgsm_with_random_start():
    model, inputs, labels = network()
    ball = Ball(math.inf, 0.1)
    moved = fgsm(model, inputs, labels, ball, generator=torch.Generator().manual_seed(0), start=uniform, step=0.125)
    assert not torch.equal(moved, fgsm(model, inputs, labels, ball, generator=torch.Generator()))
    assert float((moved - inputs).abs().max()) == pytest.approx(0.1)


def test_steps_that_become_shorter_are_stronger_at_the_same_price():
    """As strong as APGD: the audit's attack must be the strongest at its price."""
    model, inputs, labels = network()
    for norm, radius in ((math.inf, 0.1), (2, 0.3)):
        ball = Ball(norm, radius)
        harm = [
            losses.margin(model(attack(model, inputs, labels, ball, generator=torch.Generator(), loss=losses.margin,
                                       steps=20, **options)), labels).mean()
            for attack, options in ((pgd, {"schedule": constant}), (pgd, {}), (apgd, {}))
        ]  # fmt: skip
        assert harm[1] >= harm[0] - 1e-9
        assert harm[1] >= harm[2] - 1e-2
