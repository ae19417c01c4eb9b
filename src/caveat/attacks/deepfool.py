"""DeepFool: step to the nearest border of the linearised network, until the answer is another one."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ball import Ball
from caveat.attacks.network import Harm, broken, checked, others_by_logit
from caveat.attacks.result import Attacked, measured, nearer
from caveat.errors import ModelError, OptionError
from caveat.types import Labels

__all__ = ["deepfool", "linear_border"]

DUAL = {1: math.inf, 2: 2, math.inf: 1}


def deepfool(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    *,
    norm: int | float = 2,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 50,
    classes: int = 9,
    overshoot: int | float = 0.02,
) -> Attacked:
    """A near input with another answer, by steps to the nearest border of the linearised network.

    Cheap and exact for linear networks; on others its distance is an upper bound, mostly above `fmn`'s. Costs a forward
    pass and `classes` backward passes a step, few steps being usual, and 10 forward passes in the end, which bring the
    point found back towards the input as far as its answer stays. Values at an end of the box do not move beyond it.
    Formula: d = min_k |f_k| / |grad f_k|_dual, f_k = z_k - z_y; x <- x + (1 + overshoot) d u, u the direction of norm 1
    in which f_k rises most.

    Parameters
    ----------
    norm
        2 or inf.
    classes
        How many of the likeliest other classes are looked at.

    Raises
    ------
    ModelError
        If the model is in training mode, does not give logits (n, c), or has no gradient.
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the box.
    OptionError
        If a number is out of range.

    Source: Moosavi-Dezfooli, Fawzi and Frossard, DeepFool, CVPR 2016 (arXiv 1511.04599), algorithm 2 and equation 11.
    """
    if norm not in (2, math.inf) or steps < 1 or classes < 1 or not overshoot >= 0:
        raise OptionError(
            "norm, steps, classes, overshoot: expected 2 or inf, at least 1, at least 1 and a number >= 0, got "
            f"{norm}, {steps}, {classes} and {overshoot}"
        )
    labels = checked(model, inputs, labels)
    box = Ball(norm, 0.0, low, high)
    box.check(inputs)
    others = others_by_logit(model, inputs, labels)[:, :classes]
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        points, spent = centres.clone(), torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
        success = broken(model, centres, labels, targeted=False) if len(centres) else labels.bool()
        for _ in range(steps):
            rows = (~success).nonzero().squeeze(1)
            if not len(rows):
                break
            at = linear_border(model, points[rows], labels[rows], others[rows], box, overshoot=overshoot)
            points[rows] = box.boxed(at, centres[rows])
            spent[rows] += 1
            success[rows] = broken(model, points[rows], labels[rows], targeted=False)
        return measured(centres, nearer(model, centres, points, labels, success), success, spent)


def linear_border(
    model: nn.Module, points: Tensor, labels: Tensor, others: Tensor, box: Ball, *, overshoot: float
) -> Tensor:
    """The nearest point, in the box's norm, at which the linearised network gives one of the `others`.

    One forward pass, and a backward pass for each of the others. Where all is flat a point stays.
    """
    gaps, slopes = _linearised(model, points, labels, others)
    sizes = torch.stack([box.slopes(points, slope) for slope in slopes]).flatten(2)
    tiny = torch.finfo(points.dtype).tiny
    dual = torch.linalg.vector_norm(sizes, DUAL[box.norm], dim=2)
    least, which = torch.where(dual > 0, gaps.abs() / dual.clamp_min(tiny), torch.inf).min(0)
    at = torch.arange(points.shape[0], device=points.device)
    size, signs, length = sizes[which, at], slopes.flatten(2)[which, at].sign(), dual[which, at][:, None]
    if box.norm == 2:
        unit = size / length.clamp_min(tiny)
    elif box.norm == 1:
        unit = torch.zeros_like(size).scatter(1, size.argmax(1, keepdim=True), 1.0)
    else:
        unit = (size > 0).to(points.dtype)
    move = unit * signs * torch.where(least.isfinite(), least, 0)[:, None]
    return points + (1 + overshoot) * move.reshape(points.shape)


def _linearised(model: nn.Module, points: Tensor, labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """By how much each other class lacks behind the label, (k, n), and the slopes of that, (k, n, ...)."""
    points = points.detach().requires_grad_()
    function = Harm(model, labels, lambda logits, truth: logits.gather(1, others) - logits.gather(1, truth[:, None]))
    gaps = function(points)
    if not gaps.requires_grad:
        raise ModelError("model: its logits have no gradient: it detaches, rounds or ignores its inputs")
    slopes = [
        torch.autograd.grad(gaps[:, k].sum(), points, retain_graph=True, materialize_grads=True, allow_unused=True)[0]
        for k in range(gaps.shape[1])
    ]
    return gaps.detach().T, torch.stack(slopes)
