"""Rotations, shifts and the like: the share of answers that none found changes, and the share that none can change."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from caveat import bounds
from caveat.attacks import spatial
from caveat.attacks.ball import Ball
from caveat.attacks.transformation import AXES, Transformation
from caveat.audits.attacked import drawn, right
from caveat.audits.certified import contradiction
from caveat.audits.pictures import mistake
from caveat.batches import Inputs, Several
from caveat.bounds.outputs import traced
from caveat.errors import ModelError, OptionError
from caveat.metrics.interval import interval_of_share
from caveat.records.attack import Transformed, TransformedPicture
from caveat.records.base import Estimate
from caveat.types import Batches

__all__ = ["check", "transformed"]

SAMPLES = 30
"""Pictures, at most."""
SECONDS = 120.0
"""Of bounds, for all pictures: each has an even share of what is left."""
POSES, TRIES = 125, 50
TOLD = 10
"""Pictures that are certified between two words of progress."""
WORDS = {
    "rotate": "rotated by {} degrees",
    "right": "shifted right by {} pixels",
    "down": "shifted down by {} pixels",
    "scale": "scaled by {}",
    "shear": "sheared by {}",
    "contrast": "contrast times {}",
    "brightness": "brightness plus {}",
}
"""What was done to a picture."""


def check(first: Inputs, transformation: Transformation) -> None:
    """Refuse inputs that are no pictures, before any work.

    Raises
    ------
    OptionError
        If they are none, or no parameter has a range.
    """
    if isinstance(first, Several) or first.ndim != 4 or not first.is_floating_point():
        kind = "several parts" if isinstance(first, Several) else f"{first.dtype} of shape {tuple(first.shape)}"
        raise OptionError(f"attack_transform: expected pictures (n, c, h, w) as floats, got {kind}; leave it out")
    if not transformation.names:
        raise OptionError(f"attack_transform: expected a range for one of {', '.join(AXES)} at least, got none")


def transformed(  # noqa: PLR0913  # as `attacked`
    model: nn.Module,
    batches: Batches,
    rows: Tensor,
    labels: Tensor,
    prints: Tensor,
    transformation: Transformation,
    *,
    generator: torch.Generator,
    samples: int = SAMPLES,
    method: Literal["interval", "deeppoly"] = "deeppoly",
    seconds: float = SECONDS,
    classes: Sequence[str] | None = None,
    pictures: int = 12,
    batch_size: int = 128,
    say: Callable[[str], None] = lambda _: None,
) -> Transformed:
    """Look for transformations that change right answers, by grid and at random, and prove that there are none (DeepG).

    For `rows`, `labels`, `prints` and `classes` see `attacked`. Where no bounds are known for the network, only the
    attack is told, and why.

    Raises
    ------
    DataError
        If inputs lie outside of [0, 1], or the set no longer gives those that were observed.
    ModelError
        If the search changed an answer that is proved to stay.
    """
    chosen, clean, truth = drawn(model, batches, rows, labels, prints, samples, generator, option="attack_transform")
    Ball(torch.inf, 0.0).check(clean)
    sure = right(model, clean, truth, batch_size)
    found, broken, told = clean.clone(), ~sure, [""] * len(clean)
    say(f"transforming {len(clean)} pictures")
    for part in sure.nonzero().squeeze(1).split(batch_size):
        if len(part):
            tried = spatial(
                model, clean[part], truth[part], transformation, generator=generator, poses=POSES, tries=TRIES
            )  # fmt: skip
            found[part], broken[part] = tried.inputs, tried.success
            for row, parameters in zip(part.tolist(), tried.parameters.tolist(), strict=True):
                told[row] = _words(transformation, parameters)
    safe, why_not, graph = torch.zeros_like(sure), "", None
    left = sure.nonzero().squeeze(1).tolist()
    until = time.perf_counter() + seconds
    for done, row in enumerate(left):
        if done % TOLD == 0:
            say(f"certifying under transformations: {done} of {len(left)} pictures are done")
        one = slice(row, row + 1)
        try:
            if graph is None:
                graph = traced(model, clean[:1])
                until = time.perf_counter() + seconds
            if (more := until - time.perf_counter()) <= 0:
                break
            shown = bounds.certify_transformed(
                model, clean[one], truth[one], transformation, method=method, seconds=more / (len(left) - done),
                graph=graph,
            )  # fmt: skip
        except ModelError as error:
            why_not = str(error).removeprefix("model: ")
            break
        safe[one] = shown.verified
        if bool(shown.falsified) and not broken[row]:
            found[one], broken[row], told[row] = shown.counterexamples, True, ""
    if bool((safe & broken).any()):
        raise contradiction()
    names = classes if classes is not None else [str(k) for k in range(int(truth.max()) + 1)]
    order = (broken & sure).nonzero().squeeze(1)[:pictures].tolist()
    return Transformed(
        ranges={name: _ends(transformation, name) for name in transformation.names},
        attack=f"grid of at most {POSES} transformations, then {TRIES} at random",
        samples=len(clean),
        clean=_share(sure),
        accuracy=_share(~broken),
        certified_by="" if why_not else method,
        verified=None if why_not else _share(safe),
        seconds=None if why_not else seconds,
        why_not=why_not,
        pictures=_shown(model, clean, found, order, told, chosen, truth, names),
    )


def _share(which: Tensor) -> Estimate:
    found = interval_of_share(int(which.sum()), len(which))
    return Estimate(value=found.value, low=found.low, high=found.high)


def _ends(transformation: Transformation, name: str) -> list[float]:
    axis = AXES.index(name)
    return [transformation.low[axis], transformation.high[axis]]


def _words(transformation: Transformation, parameters: Sequence[float]) -> str:
    """What was done to a picture."""
    each = zip(AXES, parameters, strict=True)
    return ", ".join(
        WORDS[name].format(f"{value + (name in ('scale', 'contrast')):.3g}")
        for name, value in each
        if name in transformation.names
    )


def _shown(
    model: nn.Module,
    clean: Tensor,
    found: Tensor,
    order: Sequence[int],
    told: Sequence[str],
    places: Tensor,
    truth: Tensor,
    names: Sequence[str],
) -> list[TransformedPicture]:
    shown: list[TransformedPicture] = []
    for row in order:
        one = mistake(model, clean[row], found[row], int(truth[row]), names)
        if not one.before:
            return []  # more than three channels, say
        shown.append(TransformedPicture(index=int(places[row]), **one._replace(change=told[row])._asdict()))
    return shown
