"""Cross-entropy of every labelled pixel: ordinary training of segmentation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from caveat.errors import DataError

__all__ = ["VOID", "pixel_cross_entropy"]

VOID = 255


def pixel_cross_entropy(
    model: nn.Module,
    inputs: Float[Tensor, "n ch h w"],
    labels: Int[Tensor, "n h w"],
    generator: torch.Generator,
    *,
    void: int = VOID,
    weights: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    """Mean of -w log softmax(model(inputs))[label] over the pixels that are not `void`, divided by the mean weight.

    With `weights`, one for each class, rare classes can count for more (ENet: 1 / log(1.02 + share)). Nothing is
    drawn from the generator.

    Formula: Σ_pixels w_label · (-log p_label) / Σ_pixels w_label, in nats.

    Source: Paszke et al., ENet, arXiv:1606.02147, section 5.1, for the weights.

    Raises
    ------
    DataError
        If no pixel is labelled, or label maps and logits differ in size.
    """
    del generator
    logits: Tensor = model(inputs)
    if logits.ndim != 4 or labels.shape != (len(logits), *logits.shape[2:]):
        raise DataError(
            f"labels: expected maps (n, h, w) for logits (n, c, h, w), got {tuple(labels.shape)} for "
            f"{tuple(logits.shape)}"
        )
    if not bool((labels != void).any()):
        raise DataError(f"labels: expected at least one pixel that is not void ({void}), got none in this batch")
    share = None if weights is None else logits.new_tensor(weights)
    return functional.cross_entropy(logits, labels, weight=share, ignore_index=void)
