"""What fits ask of its arguments: one place, so that the messages agree."""

from collections.abc import Mapping

import torch
from torch import Tensor

from caveat.errors import DataError
from caveat.precision import all_finite

__all__ = ["labelled_rows", "positive", "real"]


def labelled_rows(logits: Tensor, labels: Tensor, *, void: int | None) -> tuple[Tensor, Tensor]:
    """`(n, c, ...)` logits and `(n, ...)` labels as `(k, c)` and `(k,)`: the labelled samples or pixels only.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or nothing is labelled.
    """
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise DataError(f"logits: expected (n, c) or (n, c, h, w) with c >= 2 classes, got {tuple(logits.shape)}")
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != tuple(expected):
        raise DataError(f"labels: expected shape {tuple(expected)} to go with logits, got {tuple(labels.shape)}")
    valid = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
    rows, kept = logits.detach().movedim(1, -1)[valid], labels[valid].long()
    if kept.numel() == 0:
        raise DataError(
            f"labels: expected at least one labelled sample, got {labels.numel()} of which none is labelled"
        )
    if bool(((kept < 0) | (kept >= logits.shape[1])).any()):
        wrong = kept[(kept < 0) | (kept >= logits.shape[1])][0]
        raise DataError(
            f"labels: expected 0 to {logits.shape[1] - 1}, got {int(wrong)}; name a label that means 'none' with void="
        )
    if not all_finite(rows):
        bad = int((~torch.isfinite(rows)).sum())
        raise DataError(f"logits: expected finite values, got {bad} NaN or infinite of {rows.numel()}")
    return rows, kept


def real(labels: Tensor, values: Mapping[str, Tensor]) -> None:
    """Refuse what is not one finite number `(n,)` for each of at least one label; `values` are named for messages."""
    for name, found in (*values.items(), ("labels", labels)):
        if found.ndim != 1 or found.shape != labels.shape or not len(found):
            raise DataError(f"{name}: expected (n,), one for each of {len(labels)} labels, got {tuple(found.shape)}")
        if not all_finite(found):
            raise DataError(f"{name}: expected finite numbers, got NaN or infinity")


def positive(name: str, found: Tensor) -> None:
    """Refuse deviations of which one is not positive."""
    if bool((found <= 0).any()):
        raise DataError(f"{name}: expected positive values, got {float(found.min()):g}")
