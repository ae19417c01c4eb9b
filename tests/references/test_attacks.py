"""FGSM and PGD against Foolbox and torchattacks: same gradients, same steps, same inputs."""

import math
import warnings

import pytest
import torch
from tests.references.peers import FOLDER, load_peer

from caveat.attacks import Ball, constant, fgsm, from_inputs, losses, pgd
from caveat.models import small_cnn


@pytest.fixture(scope="module")
def foolbox():
    found = load_peer("foolbox")
    if found is None:
        pytest.skip(f"foolbox is not in {FOLDER}: run make references")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield found


@pytest.fixture(scope="module")
def torchattacks():
    found = load_peer("torchattacks")
    if found is None:
        pytest.skip(f"torchattacks is not in {FOLDER}: run make references")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield found


@pytest.fixture(scope="module")
def case():
    model = small_cnn(size=14, generator=torch.Generator().manual_seed(0)).eval()
    inputs = torch.rand(40, 1, 14, 14, generator=torch.Generator().manual_seed(1))
    return model, inputs, model(inputs).argmax(1)


def same(ours, theirs, *, share=0.998):
    """But for values whose gradient is so near 0 that rounding decides its sign."""
    assert ((ours - theirs).abs() < 1e-5).float().mean() > share


@pytest.mark.parametrize("radius", [0.005, 0.02, 0.05])
def test_fgsm_equals_foolbox(foolbox, case, radius):
    model, inputs, labels = case
    theirs = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, moved, success = theirs(wrapped, inputs, labels, epsilons=radius)
    ours = fgsm(model, inputs, labels, Ball(math.inf, radius), generator=torch.Generator(), loss=losses.cross_entropy)
    harmed = losses.log_odds(model(moved), labels) >= losses.log_odds(model(inputs), labels)  # ours keeps the better
    same(ours[harmed], moved[harmed])
    assert torch.equal(model(ours).argmax(1) != labels, success)


@pytest.mark.parametrize(("norm", "radius"), [(math.inf, 0.03), (2, 0.6)])
def test_pgd_equals_foolbox(foolbox, case, norm, radius):
    """Without a random start and while harm rises with every step, the last point is the best one.

    Foolbox clips to the box after projecting on the ball; with the inputs away from the box's faces that is the same.
    """
    model, inputs, labels = case
    inputs = 0.25 + 0.5 * inputs
    labels = model(inputs).argmax(1)
    kind = foolbox.attacks.LinfPGD if norm == math.inf else foolbox.attacks.L2PGD
    theirs = kind(steps=5, abs_stepsize=radius / 5, random_start=False)
    _, moved, success = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), inputs, labels, epsilons=radius)
    ours = pgd(
        model,
        inputs,
        labels,
        Ball(norm, radius),
        schedule=constant,
        generator=torch.Generator(),
        steps=5,
        step=radius / 5,
        start=from_inputs,
        loss=losses.log_odds,
    )
    last = losses.log_odds(model(ours), labels) <= losses.log_odds(model(moved), labels) + 1e-4
    assert last.float().mean() > 0.8
    same(ours[last], moved[last], share=0.99)
    assert ((model(ours).argmax(1) != labels) >= success).all()
    assert (losses.log_odds(model(ours), labels) > losses.log_odds(model(inputs), labels) + 0.1).float().mean() > 0.8


def test_pgd_is_as_strong_as_both(foolbox, torchattacks, case):
    model, inputs, labels = case
    radius, steps = 0.02, 20
    generator = torch.Generator().manual_seed(0)
    ours = pgd(model, inputs, labels, Ball(math.inf, radius), generator=generator, steps=steps, schedule=constant)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, first, _ = foolbox.attacks.LinfPGD(steps=steps, rel_stepsize=2.5 / steps)(
        wrapped, inputs, labels, epsilons=radius
    )
    second = torchattacks.PGD(model, eps=radius, alpha=2.5 * radius / steps, steps=steps)(inputs, labels)
    harm, *others = (losses.cross_entropy(model(x), labels) for x in (ours, first, second))
    for other in others:
        assert harm.mean() > 0.99 * other.mean()
        assert (harm > other - 0.05 * other.abs()).float().mean() > 0.8
