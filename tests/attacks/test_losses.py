import math

import pytest
import torch
from torch.nn.functional import cross_entropy as reference

from caveat.attacks import losses

LOGITS = torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, 1.0, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])


def test_by_hand():
    assert losses.margin(LOGITS, LABELS).tolist() == [-1.0, 2.0]
    assert losses.dlr(LOGITS, LABELS).tolist() == pytest.approx([-1 / 1.5, 2 / 2])  # over z1 - z3: 1.5 and 2
    torch.testing.assert_close(losses.cross_entropy(LOGITS, LABELS), reference(LOGITS, LABELS, reduction="none"))
    torch.testing.assert_close(losses.confidence(LOGITS, LABELS), LOGITS.log_softmax(1).amax(1))
    p = LOGITS.softmax(1).gather(1, LABELS[:, None]).squeeze(1)
    torch.testing.assert_close(losses.log_odds(LOGITS, LABELS), ((1 - p) / p).log())
    torch.testing.assert_close(losses.towards(losses.margin)(LOGITS, LABELS), -losses.margin(LOGITS, LABELS))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.log_odds, losses.margin, losses.soft_margin])
def test_a_sure_network_still_has_the_right_gradient(loss):
    """At a margin of 40 torch's own cross-entropy in float32 is 0 and its gradient lacks the label's part."""
    logits = torch.tensor([[40.0, 0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0])
    (theirs,) = torch.autograd.grad(reference(logits, labels), logits)
    assert float(theirs[0, 0]) == 0.0
    (ours,) = torch.autograd.grad(loss(logits, labels).sum(), logits)
    direction = ours / ours.abs().sum()
    assert float(direction[0, 0]) == pytest.approx(-0.5)
    assert float(ours.sum() / ours.abs().sum()) == pytest.approx(0.0, abs=1e-6)


def test_gradients_of_log_odds_and_cross_entropy_point_the_same_way():
    logits = LOGITS.clone().requires_grad_()
    a, b = (torch.autograd.grad(f(logits, LABELS).sum(), logits)[0] for f in (losses.log_odds, losses.cross_entropy))
    torch.testing.assert_close(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True))


def test_the_soft_margin_is_the_margin_with_another_slope():
    """By hand at the margin -1: of others 1, -1 and 0.5 the shares exp(T z), T = 1 + log 3; no scale changes them."""
    weights = [math.exp((1 + math.log(3)) * z) for z in (1.0, -1.0, 0.5)]
    by_hand = [-1.0, *(w / sum(weights) for w in weights)]
    for scale in (1, 7):
        logits = (scale * LOGITS).requires_grad_()
        value = losses.soft_margin(logits, LABELS)
        assert value.tolist() == losses.margin(logits, LABELS).tolist()
        (slope,) = torch.autograd.grad(value.sum(), logits)
        assert slope[0].tolist() == pytest.approx(by_hand)


def test_the_soft_margin_has_a_slope_at_the_border():
    logits = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(losses.soft_margin(logits, torch.tensor([0])).sum(), logits)
    assert slope.tolist() == [[-1.0, 1.0, 0.0]]


def test_dlr_is_blind_to_scale_and_shift():
    torch.testing.assert_close(losses.dlr(3 * LOGITS + 7, LABELS), losses.dlr(LOGITS, LABELS))


def test_below_four_classes_dlr_keeps_a_meaning():
    """Of three classes over z1 - z3, of two the margin; AutoAttack's fails there."""
    three, two = LOGITS[:, :3], LOGITS[:, :2]
    labels, targets = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert losses.dlr(three, labels).tolist() == pytest.approx([-1 / 3, -2 / 3])
    assert losses.dlr_towards(targets)(LOGITS, labels).tolist() == pytest.approx([-1 / 2.25, -3 / 2.5])
    assert losses.dlr_towards(targets)(three, labels).tolist() == pytest.approx([-1 / 3, -1.0])
    for loss in (losses.dlr, losses.dlr_towards(targets)):
        assert loss(two, labels).tolist() == losses.margin(two, labels).tolist() == [-1.0, -3.0]
