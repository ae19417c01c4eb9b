"""A guard on disk: a folder of arrays and JSON. It names no code: whoever loads it brings the network.

    manifest.json                 what is promised, what was fitted, names, sizes and SHA-256 of the other files
    guard-<hash>.safetensors      the fitted tensors and the reference scores (no inputs)
    model-<hash>.safetensors      the network's weights
    examples-<hash>.safetensors   small held-out pictures, where they were asked for

Files of tensors are named after their content, and the manifest is renamed into place last: a process that is killed,
or two that write at once, leave a whole guard. Hashes detect damage and mix-ups; against somebody who may write the
folder only a signature helps.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor, nn

from caveat import calibration, fitted
from caveat.errors import DataError
from caveat.files import alone
from caveat.guard import card as cards
from caveat.guard import examples, stored
from caveat.guard.decision import Decision, as_it_is
from caveat.guard.examples import Examples
from caveat.guard.guard import Guard
from caveat.guard.likeness import Answers
from caveat.guard.stored import Sealed, check_output
from caveat.guard.threshold import Promise
from caveat.models import adapter as forms
from caveat.models.restore import restored as rewrapped
from caveat.posteriors.network import Predictive, restored
from caveat.records.base import stamp
from caveat.scoring import catalog
from caveat.tensors import pack
from caveat.weights import unwrapped

__all__ = ["Manifest", "card", "check_output", "load", "manifest", "save", "tune"]

EXAMPLES = "examples"
"""The role of their file."""


class Manifest(Sealed):
    """What a guard is and promises."""

    schema_version: Literal[2] = 2
    posterior: dict[str, Any] | None = None
    """Of a guard around posterior samples, what makes them again from the network's weights."""
    adapted: dict[str, Any] | None = None
    """Of a guard around a `models.Adapted`, what makes it again."""
    head: str | None
    pooled: bool
    classes: list[str]
    shape: list[int]
    largest: float | None = None
    dtype: str = "float32"
    """The precision that the network ran in when the guard was fitted."""
    columns: list[str] | None = None
    """Names of the inputs, where they are columns of a table."""
    score: str
    score_values: dict[str, Any]
    probe_values: dict[str, Any] | None
    calibration: str
    calibration_values: dict[str, Any]
    why: str
    operating: stored.Operating


def save(
    decision: Decision,
    weights: dict[str, Tensor],
    folder: str | Path,
    *,
    model: str = "",
    posterior: dict[str, Any] | None = None,
    form: dict[str, Any] | None = None,
    answers: Answers | None = None,
) -> None:
    """Write a guard to `folder`; one that is there is replaced, and stays until the new one is whole.

    `posterior` is the `description` of a `posteriors.Predictive`, whose `state_dict` the weights then are; `form`
    that of a `models.Adapted`, `answers` what the network is known again by.

    Raises
    ------
    DataError
        As `check_output`.
    """
    score_tensors, score_values = _parts(decision.score.fitted)
    own_tensors, own_values = _parts(None if decision.calibration == "none" else decision.calibrated)
    tensors = {f"score.{name}": tensor for name, tensor in score_tensors.items()}
    tensors |= {f"calibration.{name}": tensor for name, tensor in own_tensors.items()}
    probe_tensors, probe_values = _parts(decision.probe)
    tensors |= {f"probe.{name}": tensor for name, tensor in probe_tensors.items()}
    tensors |= {"reference": decision.reference, "reference_wrong": decision.reference_wrong}
    if decision.reference_labels is not None:
        tensors["reference_labels"] = decision.reference_labels
    made = Manifest(
        **stamp(),
        model=model,
        posterior=posterior,
        adapted=form,
        answers=answers,
        head=decision.head,
        pooled=decision.pooled,
        classes=list(decision.classes),
        shape=list(decision.shape),
        largest=decision.largest,
        dtype=decision.dtype,
        columns=None if decision.columns is None else list(decision.columns),
        score=decision.score.name,
        score_values=score_values,
        probe_values=None if decision.probe is None else probe_values,
        calibration=decision.calibration,
        calibration_values=own_values,
        why=decision.why,
        operating=stored.Operating(**vars(decision.promise)),
    )
    files = {"guard": pack(tensors), "model": pack(weights)}
    if decision.examples is not None:
        files[EXAMPLES] = pack(vars(decision.examples))
    stored.write(folder, files, made)


def manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest of a guard.

    Raises
    ------
    DataError
        If it is missing, damaged, or of another schema.
    """
    return stored.read(folder, Manifest)


def load(folder: str | Path, model: nn.Module) -> Guard:
    """Load a guard around `model`, a network of the architecture it was fitted for; its weights are loaded too.

    Of a guard around posterior samples `model` is one such network: the samples lie in the folder.

    Raises
    ------
    DataError
        If a file is missing, damaged, altered, or does not belong to a guard.
    ModelError
        If the weights do not fit the model.
    """
    folder = Path(folder)
    made = manifest(folder)
    state = stored.tensors(folder, "model", made)
    known = _decision(folder, made)
    if made.posterior is None:
        inner = state if made.adapted is None else stored.below(state, "model.")
        # as --normalize had put it there, and within the form that the network has
        model = forms.restored(rewrapped(model, inner), made.adapted)
    elif not isinstance(model, Predictive):
        model = restored(rewrapped(model, stored.below(state, "model.")), state, made.posterior)
    layers = {unwrapped(name): name for name, _ in model.named_modules()}
    head = None if made.head is None else layers.get(unwrapped(made.head), made.head)
    return Guard(stored.fill(model, state, made), replace(known, head=head))


def tune(
    folder: str | Path, *, keep: float | None = None, max_error: float | None = None, each_class: bool = False
) -> Manifest:
    """Set another operating point of a guard on disk; nothing is fitted again, and only the manifest is rewritten.

    Raises
    ------
    DataError, OptionError
        As `load`, and as `threshold.promise`.
    """
    folder = Path(folder)
    made = manifest(folder)
    tuned = _decision(folder, made).tuned(keep=keep, max_error=max_error, each_class=each_class)
    changed = made.model_copy(update={"operating": stored.Operating(**vars(tuned.promise))})
    with alone(folder):
        stored.seal(folder, changed)
    return changed


def card(folder: str | Path) -> str:
    """The model card of a guard on disk, which needs no network; see `card.of`.

    Raises
    ------
    DataError
        As `load`.
    """
    folder, made = Path(folder), manifest(folder)
    stored.tensors(folder, "model", made)  # what it says of the files is true
    return cards.of(_decision(folder, made), made)


def _decision(folder: Path, made: Manifest) -> Decision:
    tensors = stored.tensors(folder, "guard", made)
    if made.score not in catalog.families() or made.calibration not in ("none", *calibration.FROM_LOGITS):
        raise DataError(f"guard: this version knows no score {made.score!r} or no calibration {made.calibration!r}")
    kind = catalog.fitted_class(made.score)
    score = catalog.restored(made.score, _rebuilt(kind, tensors, made.score_values, "score."))
    probe = None
    if made.probe_values is not None:
        probe = _rebuilt(catalog.probe_class(made.score), tensors, made.probe_values, "probe.")
    calibrated = as_it_is
    if made.calibration != "none":
        kind = get_type_hints(calibration.FROM_LOGITS[made.calibration])["return"]
        calibrated = _rebuilt(kind, tensors, made.calibration_values, "calibration.")
    if not {"reference", "reference_wrong"} <= set(tensors):
        raise DataError("guard: its tensors lack the reference scores")
    return Decision(
        score, probe, made.calibration, calibrated,
        Promise(**made.operating.model_dump()), tensors["reference"], tensors["reference_wrong"], made.head,
        made.pooled, tuple(made.classes), tuple(made.shape), made.why, made.largest,
        made.dtype, None if made.columns is None else tuple(made.columns), tensors.get("reference_labels"),
        _examples(folder, made),
    )  # fmt: skip


def _examples(folder: Path, made: Manifest) -> Examples | None:
    if EXAMPLES not in made.files:
        return None
    return examples.restored(stored.tensors(folder, EXAMPLES, made), len(made.classes))


def _rebuilt(kind: Any, tensors: dict[str, Tensor], values: dict[str, Any], prefix: str) -> Any:
    if kind is None:
        return None
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for name, tensor in own.items():
        if tensor.is_floating_point() and torch.isnan(tensor).any():
            raise DataError(f"guard: {prefix}{name} holds NaN")
    return fitted.rebuild(kind, own, values)


def _parts(thing: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return fitted.arrays(thing) if hasattr(thing, "__dataclass_fields__") else ({}, {})
