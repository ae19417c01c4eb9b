"""A regression guard on disk: see `artefact`, of which it has the layout."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from caveat.calibration.cqr import CQR
from caveat.calibration.normalised import NormalisedConformal
from caveat.errors import DataError, OptionError
from caveat.guard import card as cards
from caveat.guard import stored
from caveat.guard.likeness import Answers
from caveat.guard.regression import RegressionDecision, RegressionGuard, interval_among
from caveat.guard.threshold import Promise
from caveat.models.columns import Columns
from caveat.models.restore import restored as rewrapped
from caveat.posteriors.network import Predictive, restored
from caveat.records.base import stamp
from caveat.scores.distribution import FORMS, UNCERTAINTIES
from caveat.tensors import pack

__all__ = ["RegressionManifest", "card", "load", "manifest", "save", "tune"]


class RegressionManifest(stored.Sealed):
    """What a regression guard is and promises."""

    schema_version: Literal[1] = 1
    task: Literal["regression"] = "regression"
    form: str
    levels: list[float]
    score: str
    error: float
    interval: Literal["cqr", "normalised_conformal"]
    shape: list[int]
    largest: float | None
    why: str
    dtype: str = "float32"
    operating: stored.Operating
    posterior: dict[str, Any] | None = None
    wrapped: bool = False
    columns: list[str] | None = None


def save(
    made: RegressionDecision,
    weights: dict[str, Tensor],
    folder: str | Path,
    *,
    model: str = "",
    wrapped: bool = False,
    posterior: dict[str, Any] | None = None,
    answers: Answers | None = None,
) -> None:
    """Write a decision and the weights that it was fitted for to `folder`.

    `wrapped` says that a `models.Columns` is around the network, `posterior` is the description of a `Predictive`,
    `answers` what the network is known again by.

    Raises
    ------
    DataError
        If the folder holds anything that is no guard.
    """
    interval = made.interval
    written = RegressionManifest(
        **stamp(), model=model, answers=answers, form=made.form, levels=list(made.levels), score=made.score,
        error=made.error,
        interval="cqr" if isinstance(interval, CQR) else "normalised_conformal",
        shape=list(made.shape), largest=made.largest, why=made.why, dtype=made.dtype,
        operating=stored.Operating(**vars(made.promise)),
        posterior=posterior, wrapped=wrapped, columns=None if made.columns is None else list(made.columns),
    )  # fmt: skip
    tensors = {"reference": made.reference, "scores": made.scores, "nonconformity": made.nonconformity}
    stored.write(folder, {"guard": pack(tensors), "model": pack(weights)}, written)


def manifest(folder: str | Path) -> RegressionManifest:
    """Read and check the manifest of a regression guard.

    Raises
    ------
    DataError
        If it is missing, damaged, altered, or of another kind.
    """
    return stored.read(folder, RegressionManifest)


def load(folder: str | Path, model: nn.Module) -> RegressionGuard:
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
    state, tensors = stored.tensors(folder, "model", made), stored.tensors(folder, "guard", made)
    if made.posterior is None:
        model = rewrapped(model, state)
    elif not isinstance(model, Predictive):
        inner = rewrapped(model, stored.below(state, "model."))
        model = restored(inner, state, made.posterior)
    model = stored.fill(model, state, made)
    return RegressionGuard(Columns(model) if made.wrapped else model, _decision(made, tensors))


def tune(folder: str | Path, *, keep: float) -> RegressionManifest:
    """Set another share kept of a guard on disk; nothing is fitted again, and only the manifest is rewritten.

    Raises
    ------
    DataError, OptionError
        As `RegressionGuard.load`, and as `threshold.promise`.
    """
    folder = Path(folder)
    made = manifest(folder)
    tuned = _decision(made, stored.tensors(folder, "guard", made)).tuned(keep=keep)
    changed = made.model_copy(update={"operating": stored.Operating(**vars(tuned.promise))})
    stored.seal(folder, changed)
    return changed


def card(folder: str | Path) -> str:
    """The model card of a guard on disk, which needs no network; see `card.of_regression`.

    Raises
    ------
    DataError
        As `load`.
    """
    folder, made = Path(folder), manifest(folder)
    stored.tensors(folder, "model", made)  # what it says of the files is true
    return cards.of_regression(_decision(made, stored.tensors(folder, "guard", made)), made)


def _decision(made: RegressionManifest, tensors: dict[str, Tensor]) -> RegressionDecision:
    if made.score not in UNCERTAINTIES or made.form not in FORMS:
        raise DataError(f"guard: this version knows no score {made.score!r} or no form {made.form!r}")
    if not {"reference", "scores", "nonconformity"} <= set(tensors):
        raise DataError("guard: its tensors lack the reference scores or what its interval is fitted on")
    kind = CQR if made.interval == "cqr" else NormalisedConformal
    held = Promise(**made.operating.model_dump())
    try:
        interval = interval_among(kind, tensors["scores"], tensors["nonconformity"], held.threshold, made.error)
    except OptionError as error:
        raise DataError(f"guard: its threshold leaves nothing to fit its interval on ({error})") from None
    return RegressionDecision(
        made.form, tuple(made.levels), made.score, held, tensors["reference"],
        interval, made.error, tensors["scores"], tensors["nonconformity"], tuple(made.shape), made.largest, made.why,
        made.dtype, None if made.columns is None else tuple(made.columns),
    )  # fmt: skip
