"""A multi-label guard on disk: see `artefact`, of which it has the layout."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from caveat.calibration.per_label import PerLabel
from caveat.errors import DataError, OptionError
from caveat.guard import card as cards
from caveat.guard import stored
from caveat.guard.likeness import Answers
from caveat.guard.multilabel import MultilabelDecision, MultilabelGuard, controlled
from caveat.guard.threshold import Promise
from caveat.models import adapter as forms
from caveat.models.restore import restored as rewrapped
from caveat.posteriors.network import Predictive, restored
from caveat.records.base import stamp
from caveat.scores import FROM_SIGMOIDS
from caveat.tensors import pack

__all__ = ["MultilabelManifest", "card", "load", "manifest", "save", "tune"]

TENSORS = ("reference", "temperature", "scores", "true_probs", "true_samples")
"""The label threshold is none of them: it follows from the last three and the threshold of the score, also of a guard
that was tuned."""


class MultilabelManifest(stored.Sealed):
    """What a multi-label guard is and promises."""

    schema_version: Literal[1] = 1
    task: Literal["multilabel"] = "multilabel"
    score: str
    error: float
    names: list[str]
    """Of the labels."""
    shape: list[int]
    largest: float | None
    why: str
    dtype: str = "float32"
    operating: stored.Operating
    posterior: dict[str, Any] | None = None
    adapted: dict[str, Any] | None = None
    """Of a guard around a `models.Adapted`, what makes it again."""
    columns: list[str] | None = None


def save(
    made: MultilabelDecision,
    weights: dict[str, Tensor],
    folder: str | Path,
    *,
    model: str = "",
    posterior: dict[str, Any] | None = None,
    form: dict[str, Any] | None = None,
    answers: Answers | None = None,
) -> None:
    """Write a decision and the weights that it was fitted for to `folder`.

    `posterior` is the description of a `Predictive`, `form` that of an `Adapted`, `answers` what the network is known
    again by.

    Raises
    ------
    DataError
        If the folder holds anything that is no guard.
    """
    written = MultilabelManifest(
        **stamp(), model=model, answers=answers, score=made.score, error=made.error, names=list(made.names),
        shape=list(made.shape), largest=made.largest, why=made.why, dtype=made.dtype,
        operating=stored.Operating(**vars(made.promise)), posterior=posterior, adapted=form,
        columns=None if made.columns is None else list(made.columns),
    )  # fmt: skip
    values = (
        made.reference, made.calibrated.temperature, made.scores, made.true_probs, made.true_samples,
    )  # fmt: skip
    tensors: dict[str, Tensor] = dict(zip(TENSORS, values, strict=True))
    stored.write(folder, {"guard": pack(tensors), "model": pack(weights)}, written)


def manifest(folder: str | Path) -> MultilabelManifest:
    """Read and check the manifest of a multi-label guard.

    Raises
    ------
    DataError
        If it is missing, damaged, altered, or of another kind.
    """
    return stored.read(folder, MultilabelManifest)


def load(folder: str | Path, model: nn.Module) -> MultilabelGuard:
    """Read a guard around `model`, a network of the architecture it was fitted for; its weights are loaded too.

    Raises
    ------
    DataError
        If a file is missing, damaged or altered.
    ModelError
        If the weights do not fit the model.
    """
    folder = Path(folder)
    made = manifest(folder)
    weights, tensors = stored.tensors(folder, "model", made), stored.tensors(folder, "guard", made)
    if made.posterior is None:
        inner = weights if made.adapted is None else stored.below(weights, "model.")
        model = forms.restored(rewrapped(model, inner), made.adapted)
    elif not isinstance(model, Predictive):
        model = restored(rewrapped(model, stored.below(weights, "model.")), weights, made.posterior)
    return MultilabelGuard(stored.fill(model, weights, made), _decision(made, tensors))


def tune(folder: str | Path, *, keep: float) -> MultilabelManifest:
    """Set another share kept of a guard on disk; nothing is fitted again but the label sets.

    Raises
    ------
    DataError, OptionError
        As `MultilabelGuard.load`, and as `threshold.promise`.
    """
    folder = Path(folder)
    made = manifest(folder)
    tuned = _decision(made, stored.tensors(folder, "guard", made)).tuned(keep=keep)
    changed = made.model_copy(update={"operating": stored.Operating(**vars(tuned.promise))})
    stored.seal(folder, changed)
    return changed


def card(folder: str | Path) -> str:
    """The model card of a guard on disk, which needs no network; see `card.of_multilabel`.

    Raises
    ------
    DataError
        As `load`.
    """
    folder, made = Path(folder), manifest(folder)
    stored.tensors(folder, "model", made)  # what it says of the files is true
    return cards.of_multilabel(_decision(made, stored.tensors(folder, "guard", made)), made)


def _decision(made: MultilabelManifest, tensors: dict[str, Tensor]) -> MultilabelDecision:
    if made.score not in FROM_SIGMOIDS:
        raise DataError(f"guard: this version knows no score {made.score!r}")
    if not set(TENSORS) <= set(tensors):
        raise DataError("guard: its tensors lack the reference scores, the temperatures or the label sets")
    temperature, scores = tensors["temperature"], tensors["scores"]
    true = tensors["true_probs"], tensors["true_samples"]
    if temperature.shape != (len(made.names),) or true[0].shape != true[1].shape:
        raise DataError("guard: its temperatures are not one for each label, or its true labels are of no sample")
    held = Promise(**made.operating.model_dump())
    try:
        control = controlled(scores, *true, held.threshold, made.error)
    except OptionError as error:
        raise DataError(f"guard: its threshold leaves nothing to fit its label sets on ({error})") from None
    return MultilabelDecision(
        made.score, held, tensors["reference"], PerLabel(temperature),
        control, made.error, scores, *true,
        tuple(made.names), tuple(made.shape), made.largest, made.why, made.dtype,
        None if made.columns is None else tuple(made.columns),
    )  # fmt: skip
