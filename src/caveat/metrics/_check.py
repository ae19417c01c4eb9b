"""What the metrics ask of their arguments: one place, so that the messages agree."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from caveat.errors import DataError, OptionError
from caveat.precision import ends

__all__ = ["at_least", "both_sides", "finite", "labelled", "numbers", "pair", "probabilities", "rows", "share"]


def finite(name: str, tensor: Tensor) -> tuple[float, float]:
    """The smallest and the largest number; raise a DataError unless there is one and all are finite."""
    if tensor.numel() == 0:
        raise DataError(f"{name}: expected at least one value, got an empty tensor of shape {tuple(tensor.shape)}")
    low, high = ends(tensor)
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN is handed on; no mask of the tensor's size is made
        bad = int((~torch.isfinite(tensor)).sum())
        raise DataError(
            f"{name}: expected finite values, got {bad} NaN or infinite of {tensor.numel()}; drop or mend them"
        )
    return low, high


def pair(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise a DataError unless both tensors have the same shape."""
    if tensor.shape != other.shape:
        raise DataError(
            f"{other_name}: expected the shape of {name}, {tuple(tensor.shape)}, got {tuple(other.shape)}; "
            "one entry per sample (and pixel) is needed"
        )


def numbers(tensors: Mapping[str, Tensor], *, infinite: tuple[str, ...] = ()) -> None:
    """Raise a DataError unless all have the shape of the first, and only finite values (but those in `infinite`)."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        pair(first_name, first, name, tensor)
    for name, tensor in tensors.items():
        if name not in infinite:
            finite(name, tensor)


def both_sides(negative: Tensor, positive: Tensor, metric: str) -> None:
    """Raise a DataError unless each side holds a sample (in every replica)."""
    for side, counts in (("negative (in-distribution or correct)", negative), ("positive (OOD or wrong)", positive)):
        if bool((counts.sum(-1) == 0).any()):
            raise DataError(f"{metric}: the {side} side is empty, and without it {metric} is not defined; add samples")


def share(name: str, value: float, *, one: bool = True) -> None:
    """Raise an OptionError unless 0 < value <= 1 (or < 1)."""
    if not (0 < value <= 1) or (value == 1 and not one):
        raise OptionError(f"{name}: expected a share in ]0, 1{']' if one else '['}, got {value}")


def at_least(name: str, value: int, smallest: int) -> None:
    """Raise an OptionError unless value >= smallest."""
    if value < smallest:
        raise OptionError(f"{name}: expected at least {smallest}, got {value}")


def probabilities(probs: Tensor) -> None:
    """Raise a DataError unless `probs` are finite, in [0, 1] and sum to one over the class axis (axis 1)."""
    low, high = finite("probs", probs)
    half = probs.dtype in (torch.float16, torch.bfloat16)
    slack = 0.02 if half else 1e-3
    if low < 0 or high > 1 + slack:
        raise DataError(
            f"probs: expected values in [0, 1], got [{low:.4g}, {high:.4g}]; if these are logits, softmax them"
        )
    off = float((probs.sum(dim=1, dtype=torch.float32 if half else None) - 1).abs().max())
    if off > slack:
        raise DataError(
            f"probs: expected sums of 1 over the classes (axis 1), got sums that are off by up to {off:.3g}"
        )


def labelled(outputs: Tensor, labels: Tensor, *, name: str, void: int | None) -> Tensor:
    """The mask of the labelled samples or pixels: all but the `void` ones.

    `outputs` (`name`: probs or logits) are `(n, c, ...)`, `labels` `(n, ...)`.
    """
    expected = (outputs.shape[0], *outputs.shape[2:])
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise DataError(f"{name}: expected (n, c) or (n, c, h, w) with c >= 2 classes, got {tuple(outputs.shape)}")
    if tuple(labels.shape) != tuple(expected):
        raise DataError(f"labels: expected shape {tuple(expected)} to go with {name}, got {tuple(labels.shape)}")
    valid = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
    if not bool(valid.any()):
        raise DataError(
            f"labels: expected at least one labelled sample, got {labels.numel()} of which none is labelled"
        )
    wrong = valid & ((labels < 0) | (labels >= outputs.shape[1]))
    if bool(wrong.any()):
        raise DataError(
            f"labels: expected 0 to {outputs.shape[1] - 1}, got {int(labels[wrong][0])}; "
            "name a label that means 'none' with void="
        )
    return valid


def rows(outputs: Tensor, valid: Tensor) -> Tensor:
    """`(n, c, ...)` as `(k, c)`: one row per labelled sample or pixel, in the order of `labels[valid]`."""
    if outputs.ndim == 2:
        return outputs if bool(valid.all()) else outputs[valid]
    return outputs.movedim(1, -1)[valid]
