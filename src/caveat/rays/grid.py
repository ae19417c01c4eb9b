"""The published statistic of confidence far away, on a grid of alphas: beside the exact one of `rays`."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.evaluation import check

__all__ = ["overconfident", "reached"]

LARGEST = 1.1**400  # beyond every published number (3.0e15 is 1.1^374)


def reached(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    *,
    threshold: float = 0.999,
    factor: float = 1.1,
    largest: float = LARGEST,
    batch_size: int = 512,
) -> Float[Tensor, " n"]:
    """The first alpha of 1, 1.1, 1.1^2 ... at which model(alpha x) is at least `threshold` sure; inf if none is.

    As the published table was made: uniform noise, inputs that leave [0, 1], the model's own type; its "median alpha"
    is the median with inf sorted last. The exact first crossing (`rays.along(...).first`) is up to one factor smaller.
    In float32 a network whose slopes all tie may seem sure at an alpha so large that only rounding is left. Formula:
    alpha <- 1; while max softmax(model(alpha x)) < threshold: alpha <- factor alpha.

    Raises
    ------
    ModelError
        If the model is in training mode.
    OptionError
        If the threshold is not in (0, 1) or the factor is not above 1.

    Source: Hein, Andriushchenko and Bitterwolf, CVPR 2019, table of alpha scaling; every published value is a power of
    1.1.
    """
    _check(model, threshold, factor)

    def stretched(points: Tensor, alpha: float) -> Tensor:
        return points * alpha

    return _first(model, inputs, stretched, threshold, factor, largest, batch_size)


def overconfident(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    *,
    threshold: float = 0.95,
    factor: float = 1.1,
    low: float = 0.0,
    high: float = 1.0,
    batch_size: int = 512,
) -> Bool[Tensor, " n"]:
    """Whether clip(alpha x) is more than `threshold` sure at some alpha of the grid: the mean is the published share.

    The path stays in the box and ends where every positive value is at the top; it is followed until then, for each
    input, or to alpha = 1.1^400 if a value is nearly 0.

    Raises
    ------
    ModelError
        If the model is in training mode.
    OptionError
        If the threshold is not in (0, 1) or the factor is not above 1.

    Source: as `reached`; that the condition is "at some alpha" and not "at the sample's own" was found from the
    authors' networks.
    """
    _check(model, threshold, factor)
    flat = inputs.flatten(1)
    smallest = torch.where(flat > 0, flat, math.inf).amin(1)
    last = (high / smallest).clamp_min(1.0) * factor
    largest = min(float(torch.where(torch.isinf(smallest), 1.0, last).max()) if len(flat) else 1.0, LARGEST)

    def clipped(points: Tensor, alpha: float) -> Tensor:
        return (points * alpha).clamp(low, high)

    return torch.isfinite(_first(model, inputs, clipped, threshold, factor, largest, batch_size, strict=True))


def _first(
    model: nn.Module,
    inputs: Tensor,
    moved: Callable[[Tensor, float], Tensor],
    threshold: float,
    factor: float,
    largest: float,
    batch_size: int,
    *,
    strict: bool = False,
) -> Tensor:
    found = torch.full((len(inputs),), math.inf, dtype=torch.float64, device=inputs.device)
    power = 0
    with torch.no_grad():
        while factor**power <= largest:
            alpha = factor**power
            rows = torch.isinf(found).nonzero().squeeze(1)
            if not len(rows):
                break
            for part in rows.split(batch_size):
                sure = model(moved(inputs[part], alpha)).softmax(1).amax(1)
                there = sure > threshold if strict else sure >= threshold
                found[part[there]] = alpha
            power += 1
    return found


def _check(model: nn.Module, threshold: float, factor: float) -> None:
    check(model)
    if not 0 < threshold < 1 or not factor > 1:
        raise OptionError(f"threshold, factor: expected a share in (0, 1) and more than 1, got {threshold}, {factor}")
