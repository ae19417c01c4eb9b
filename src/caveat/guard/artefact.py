"""A guard on disk: a folder of arrays and JSON. It names no code: whoever loads it brings the network.

    manifest.json                 what is promised, what was fitted, names, sizes and SHA-256 of the other files
    guard-<hash>.safetensors      the fitted tensors and the reference scores (no inputs)
    model-<hash>.safetensors      the network's weights

Files of tensors are named after their content, and the manifest is renamed into place last: a process that is killed,
or two that write at once, leave a whole guard. Hashes detect damage and mix-ups; against somebody who may write the
folder only a signature helps.
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from caveat import calibration, fitted
from caveat.errors import DataError, ModelError
from caveat.files import TEMPORARY, alone, parse_json, read_bytes, read_json, write_atomically, write_bytes
from caveat.guard.decision import Decision, as_it_is
from caveat.guard.guard import Guard
from caveat.guard.threshold import Promise
from caveat.models import adapter as forms
from caveat.models import normalized
from caveat.posteriors.network import Predictive, restored
from caveat.records.base import Part, stamp
from caveat.scoring import catalog
from caveat.tensors import pack, unpack
from caveat.weights import unwrapped

__all__ = ["Manifest", "check_output", "load", "manifest", "save", "tune"]

_OWN_FILE = re.compile(r"(?:guard|model)-([0-9a-f]{16})\.safetensors")
_OWN_TEMPORARY = re.compile(TEMPORARY.format(name=r"(?:manifest\.json|(?:guard|model)-[0-9a-f]{16}\.safetensors)"))


class _File(Part):
    name: str
    size: int
    sha256: str


class _Operating(Part):
    kind: Literal["keep", "max_error", "against"]
    level: float
    threshold: float
    kept: float
    error: float
    rounding: float


class Manifest(Part):
    """What a guard is and promises."""

    schema_version: Literal[2] = 2
    caveat_version: str
    created: str
    model: str
    """How the network was made, for people: never imported."""
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
    score: str
    score_values: dict[str, Any]
    probe_values: dict[str, Any] | None
    calibration: str
    calibration_values: dict[str, Any]
    why: str
    operating: _Operating
    files: dict[str, _File]
    digest: str = ""
    """SHA-256 of this manifest without this field."""


def check_output(folder: str | Path) -> None:
    """Refuse a folder that a guard may not be written to: one that holds anything that is no guard of ours.

    Raises
    ------
    DataError
        If the path is a file, or the folder holds a file that is not, byte for byte, what `save` wrote there.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    foreign = [path.name for path in sorted(folder.iterdir()) if not _own(path)] if folder.is_dir() else [folder.name]
    if foreign:
        raise DataError(
            f"output: {folder} exists and is not a guard, or holds more than one ({', '.join(foreign[:3])}); "
            "choose another folder: nothing in it was changed"
        )


def save(
    decision: Decision,
    weights: dict[str, Tensor],
    folder: str | Path,
    *,
    model: str = "",
    posterior: dict[str, Any] | None = None,
    form: dict[str, Any] | None = None,
) -> None:
    """Write a guard to `folder`, which holds the old guard (or none) until the new one is whole.

    `posterior` is the `description` of a `posteriors.Predictive`, whose `state_dict` the weights then are; `form`
    that of a `models.Adapted`.

    Raises
    ------
    DataError
        As `check_output`.
    """
    folder = Path(folder)
    check_output(folder)
    score_tensors, score_values = _parts(decision.score.fitted)
    own_tensors, own_values = _parts(None if decision.calibration == "none" else decision.calibrated)
    tensors = {f"score.{name}": tensor for name, tensor in score_tensors.items()}
    tensors |= {f"calibration.{name}": tensor for name, tensor in own_tensors.items()}
    tensors |= {"reference": decision.reference, "reference_wrong": decision.reference_wrong}
    data = {"guard": pack(tensors), "model": pack(weights)}
    files = {role: _described(role, content) for role, content in data.items()}
    made = Manifest(
        **stamp(),
        model=model,
        posterior=posterior,
        adapted=form,
        head=decision.head,
        pooled=decision.pooled,
        classes=list(decision.classes),
        shape=list(decision.shape),
        largest=decision.largest,
        dtype=decision.dtype,
        score=decision.score.name,
        score_values=score_values,
        probe_values=None if decision.probe is None else _parts(decision.probe)[1],
        calibration=decision.calibration,
        calibration_values=own_values,
        why=decision.why,
        operating=_Operating(**vars(decision.promise)),
        files=files,
    )
    with alone(folder):
        try:
            for role, content in data.items():
                write_bytes(folder / files[role].name, content)
            write_atomically(folder / "manifest.json", _sealed(made))
        finally:  # of the guard that was replaced, of one that was killed before its end, or of this one on a full disk
            for path in folder.iterdir():
                if _OWN_FILE.fullmatch(path.name) and path.name not in _named_by(folder) and _own(path):
                    path.unlink(missing_ok=True)


def _described(role: str, content: bytes) -> _File:
    digest = hashlib.sha256(content).hexdigest()
    return _File(name=f"{role}-{digest[:16]}.safetensors", size=len(content), sha256=digest)


def _own(path: Path) -> bool:
    """Whether a file is one that `save` wrote under this name: a valid manifest, or tensors with the hash they name."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.name == "manifest.json":
        try:
            manifest(path.parent)
        except DataError:
            return False
        return True
    named = _OWN_FILE.fullmatch(path.name)
    if named:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1])
    return _OWN_TEMPORARY.fullmatch(path.name) is not None  # of a process that was killed


def _named_by(folder: Path) -> set[str]:
    """The files of the guard that `folder` holds now, if any."""
    if not (folder / "manifest.json").exists():
        return set()
    return {file.name for file in manifest(folder).files.values()}


def manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest of a guard.

    Raises
    ------
    DataError
        If it is missing, damaged, or of another schema.
    """
    path = Path(folder) / "manifest.json"
    data = read_json(path, name="guard", constants=True)
    try:
        made = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"guard: {path} is not the manifest of a guard: {place}: {first['msg']}") from None
    if parse_json(_sealed(made), name="guard", where=path, constants=True)["digest"] != made.digest:
        raise DataError(f"guard: {path} was altered after it was written")
    return made


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
    state = _checked(folder, "model", made)
    tensors = _checked(folder, "guard", made)
    if made.posterior is None:
        inner = state if made.adapted is None else _below(state, "model.")
        # as --normalize had put it there, and within the form that the network has
        model = forms.restored(normalized.restored(model, inner), made.adapted)
    elif not isinstance(model, Predictive):
        model = restored(normalized.restored(model, _below(state, "model.")), state, made.posterior)
    own = model.state_dict()
    plain = {unwrapped(name): name for name in own}  # it may be compiled where the other was not, or the reverse
    state = {plain.get(unwrapped(name), name): tensor for name, tensor in state.items()}
    layers = {unwrapped(name): name for name, _ in model.named_modules()}
    head = None if made.head is None else layers.get(unwrapped(made.head), made.head)
    if set(own) != set(state) or any(own[name].shape != state[name].shape for name in own):
        wrong = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
        raise ModelError(
            f"model: the guard's weights do not fit it ({', '.join(wrong[:3])}); it was made for "
            f"{made.model or 'another'}"
        )
    model.load_state_dict(state)
    return Guard(model.eval(), replace(_decision(made, tensors), head=head))


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def tune(folder: str | Path, *, keep: float | None = None, max_error: float | None = None) -> Manifest:
    """Set another operating point of a guard on disk; nothing is fitted again, and only the manifest is rewritten.

    Raises
    ------
    DataError, OptionError
        As `load`, and as `threshold.promise`.
    """
    folder = Path(folder)
    made = manifest(folder)
    tuned = _decision(made, _checked(folder, "guard", made)).tuned(keep=keep, max_error=max_error)
    changed = made.model_copy(update={"operating": _Operating(**vars(tuned.promise))})
    with alone(folder):
        write_atomically(folder / "manifest.json", _sealed(changed))
    return changed


def _decision(made: Manifest, tensors: dict[str, Tensor]) -> Decision:
    if made.score not in catalog.families() or made.calibration not in ("none", *calibration.FROM_LOGITS):
        raise DataError(f"guard: this version knows no score {made.score!r} or no calibration {made.calibration!r}")
    kind = catalog.fitted_class(made.score)
    score = catalog.restored(made.score, _rebuilt(kind, tensors, made.score_values, "score."))
    probe = None
    if made.probe_values is not None:
        probe = fitted.rebuild(catalog.probe_class(made.score), {}, made.probe_values)
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
        made.dtype,
    )  # fmt: skip


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


def _sealed(made: Manifest) -> str:
    plain = made.model_copy(update={"digest": ""}).model_dump()
    text = json.dumps(plain, sort_keys=True, allow_nan=True)
    return json.dumps(plain | {"digest": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def _checked(folder: Path, role: str, made: Manifest) -> dict[str, Tensor]:
    expected = made.files.get(role)
    if expected is None or _OWN_FILE.fullmatch(expected.name) is None:
        raise DataError(f"guard: {folder / 'manifest.json'} names no file of the {role}")
    path = folder / expected.name
    data = read_bytes(path, name="guard")
    if len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise DataError(f"guard: {path} is not the file that was written (size or SHA-256 differs)")
    return unpack(data, name="guard", where=path)
