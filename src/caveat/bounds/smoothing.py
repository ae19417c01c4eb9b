"""Randomised smoothing: a certificate in L2 for any classifier, asked under noise; it holds with a confidence."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caveat import evaluation
from caveat.attacks.network import answered, check_numbers
from caveat.errors import DataError, OptionError
from caveat.inputs import moved
from caveat.metrics.interval import highest_share

__all__ = ["ABSTAINED", "Smoothed", "lower_share", "smooth"]

ABSTAINED = -1
BLOCK = 512
"""Noisy copies that are drawn at once."""


@dataclass(frozen=True)
class Smoothed:
    """Answers of the smoothed classifier, one for each input."""

    label: Int[Tensor, " n"]
    """The class that most noisy copies are given; -1 where that cannot be said with the confidence asked for."""
    radius: Float[Tensor, " n"]
    """Within this L2 distance the smoothed classifier answers the same; 0 where it abstains. In units of the inputs."""
    share: Float[Tensor, " n"]
    """Lower bound of the share of noisy copies that get this class."""
    std: float
    confidence: float


def smooth(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    *,
    std: float,
    generator: torch.Generator,
    draws: int = 1000,
    first: int = 100,
    confidence: float = 0.999,
    batch: int = 512,
) -> Smoothed:
    """Answer and certify with the classifier that is most often right under Gaussian noise.

    The certificate is of the smoothed classifier, whose answers are those of this function, not of `model` itself: use
    its `label`. It fails with a probability of `1 - confidence` at most for each input (the noise is drawn; the
    network's own answers are taken as they are). Noise is not clipped to [0, 1]. A network must be trained with such
    noise to be right under it. Costs `first + draws` forward passes for each input.

    Formula: k the class most often given to `first` noisy copies; p the exact (Clopper-Pearson) lower bound at
    `confidence` on its share of `draws` others; if p > ½, radius = std Φ⁻¹(p), else the answer is left open.

    Parameters
    ----------
    std
        Of the noise in units of the inputs, positive: larger certifies further and answers worse.
    draws, first
        Noisy copies that the bound rests on, and that the class is chosen by.
    generator
        On the CPU; the same seed gives the same answers, whatever the batch.

    Raises
    ------
    OptionError
        If `std`, a number of copies or `confidence` is out of range.
    DataError
        If inputs are not floating, or not finite.
    ModelError
        If the model gives no logits of two classes or more, or NaN.

    Source: J. Cohen, E. Rosenfeld, Z. Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019,
    theorem 1 and algorithm CERTIFY.
    """
    if not std > 0 or draws < 1 or first < 1 or batch < 1:
        raise OptionError(f"std, draws, first, batch: expected positive numbers, got {std}, {draws}, {first}, {batch}")
    if not 0 < confidence < 1:
        raise OptionError(f"confidence: expected a share in (0, 1), got {confidence}")
    evaluation.check(model)
    if not inputs.is_floating_point() or not bool(torch.isfinite(inputs).all()):
        what = "NaN or infinite ones among them" if inputs.is_floating_point() else str(inputs.dtype)
        raise DataError(f"inputs: expected finite floating numbers, got {what}")
    labels, shares = [], []
    for one in inputs:
        chosen = int(_votes(model, one, std, first, batch, generator).argmax())
        hits = int(_votes(model, one, std, draws, batch, generator)[chosen])
        share = lower_share(hits, draws, confidence)
        labels.append(chosen if share > 0.5 else ABSTAINED)
        shares.append(share)
    found, label = torch.tensor(shares, dtype=torch.float64), torch.tensor(labels, dtype=torch.int64)
    radius = std * torch.special.ndtri(found.clamp(0.5, 1 - 1e-15))
    return Smoothed(label, torch.where(label >= 0, radius, torch.zeros_like(radius)), found, std, confidence)


def lower_share(hits: int, count: int, confidence: float) -> float:
    """Exact (Clopper-Pearson) lower bound, at this confidence, on a share of which `hits` of `count` were seen.

    >>> round(lower_share(100, 100, 0.999), 4)  # 0.001^(1/100)
    0.9333
    """
    return 1 - highest_share(count - hits, count, 1 - confidence)


def _votes(
    model: nn.Module, one: Tensor, std: float, copies: int, batch: int, generator: torch.Generator
) -> Int[Tensor, " c"]:
    """How many noisy copies of an input get each class."""
    counts: Tensor | None = None
    with evaluation.without_gradients():
        for start in range(0, copies, BLOCK):
            size = min(BLOCK, copies - start)  # what is drawn does not depend on the batch
            noise = torch.randn((size, *one.shape), generator=generator, dtype=one.dtype)
            for part in noise.split(batch):
                logits = answered(model, moved(one.cpu() + std * part, model))
                check_numbers(logits)
                votes = torch.bincount(logits.argmax(dim=1).cpu(), minlength=logits.shape[1])
                counts = votes if counts is None else counts + votes
    assert counts is not None
    return counts
