"""A folder that holds a guard: files of tensors named after their content, and a sealed manifest that names them.

The manifest is renamed into place last: a process that is killed, or two that write at once, leave a whole guard.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError
from torch import Tensor, nn

from caveat.errors import DataError, ModelError
from caveat.evaluation import to_eval
from caveat.files import TEMPORARY, alone, read_bytes, read_json, write_atomically, write_bytes
from caveat.guard.likeness import Answers, check
from caveat.guard.threshold import Kind
from caveat.records.base import Part, digest
from caveat.tensors import unpack
from caveat.weights import state as weights_of
from caveat.weights import unwrapped

__all__ = [
    "File",
    "Operating",
    "Sealed",
    "Task",
    "below",
    "check_output",
    "fill",
    "read",
    "seal",
    "task_of",
    "tensors",
    "write",
]

MANIFEST = "manifest.json"
CLASSES = {"classification": "Guard", "regression": "RegressionGuard", "multilabel": "MultilabelGuard"}
"""What loads a guard, by its task."""
Task = Literal["classification", "regression", "multilabel"]
TASKS: tuple[Task, ...] = get_args(Task)
ROLES = ("guard", "model", "examples")
"""What files of tensors are named after, beside the start of their hash."""
_TENSORS = rf"(?:{'|'.join(ROLES)})-([0-9a-f]{{16}})\.safetensors"
_OWN_FILE = re.compile(_TENSORS)
_OWN_TEMPORARY = re.compile(TEMPORARY.format(name=rf"(?:manifest\.json|{_TENSORS})"))


class File(Part):
    """A file that a manifest names."""

    name: str
    size: int
    sha256: str


class Operating(Part):
    """A `threshold.Promise`."""

    kind: Kind
    level: float
    threshold: float
    kept: float
    error: float
    rounding: float
    without: tuple[int, ...] = ()
    ood_share: float | None = None
    ood_accepted: float | None = None


class Sealed(Part):
    """What every manifest of a guard holds."""

    caveat_version: str
    created: str
    model: str
    """How the network was made, for people: never imported."""
    files: dict[str, File] = Field(default_factory=dict)
    answers: Answers | None = None
    """What the network gave for generated inputs, to know it again by."""
    digest: str = ""
    """SHA-256 of this manifest without this field."""


Made = TypeVar("Made", bound=Sealed)


def check_output(folder: str | Path) -> None:
    """Refuse a folder that a guard may not be written to: one that holds anything that is no guard of ours.

    Raises
    ------
    DataError
        If the path is a file, or the folder holds a file that is not, byte for byte, what `write` wrote there.
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


def write(folder: str | Path, data: Mapping[str, bytes], made: Sealed) -> None:
    """Write tensors by role and their manifest to `folder`, which holds the old guard (or none) until this is whole.

    Raises
    ------
    DataError
        As `check_output`.
    """
    folder = Path(folder)
    check_output(folder)
    files = {role: _described(role, content) for role, content in data.items()}
    with alone(folder):
        try:
            for role, content in data.items():
                write_bytes(folder / files[role].name, content)
            seal(folder, made.model_copy(update={"files": files}))
        finally:  # of the guard that was replaced, of one that was killed before its end, or of this one on a full disk
            for path in folder.iterdir():
                if _OWN_FILE.fullmatch(path.name) and path.name not in _named_by(folder) and _own(path):
                    path.unlink(missing_ok=True)


def seal(folder: Path, made: Sealed) -> None:
    """Write the manifest with its digest."""
    plain = made.model_copy(update={"digest": ""}).model_dump()
    write_atomically(folder / MANIFEST, json.dumps(plain | {"digest": digest(plain)}, indent=1))


def read(folder: str | Path, kind: type[Made]) -> Made:
    """Read and check a manifest of this kind.

    Raises
    ------
    DataError
        If it is missing, damaged, altered, or of another kind or schema.
    """
    path = Path(folder) / MANIFEST
    data = read_json(path, name="guard", constants=True)
    task, own = task_of(folder), kind.model_fields.get("task")
    expected = "classification" if own is None else str(own.default)
    if isinstance(data, dict) and "files" in data and task != expected:
        raise DataError(
            f"guard: {folder} is a guard of {task}, where one of {expected} is meant; {CLASSES.get(task, 'another')} "
            "loads it"
        )
    if isinstance(data, dict) and "files" in data:
        version, known = data.get("schema_version"), kind.model_fields["schema_version"].default
        if version != known:
            raise DataError(
                f"guard: {path} is of schema {version!r}, and this Caveat reads schema {known}: update Caveat to read "
                "a newer one, fit the guard again in place of an older one"
            )
    try:
        made = kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"guard: {path} is not the manifest of a guard: {place}: {first['msg']}") from None
    if digest(data | {"digest": ""}) != made.digest:  # as it was written: a later version may know more fields
        raise DataError(f"guard: {path} was altered after it was written")
    return made


def task_of(folder: str | Path) -> Task:
    """The task of the guard in a folder; classification where its manifest names none.

    Raises
    ------
    DataError
        If there is no manifest, it is no JSON, or the task is not known.
    """
    place = Path(folder)
    if place.suffix == ".onnx":
        raise DataError(
            f"guard: {place} is an exported guard, which `caveat guard run` and `caveat guard serve` take; name the "
            "folder of the guard that it was exported from"
        )
    if (place / "record.json").exists() and not (place / MANIFEST).exists():
        raise DataError(f"guard: {place} is an audit; make a guard of it with  caveat guard fit {place} -o FOLDER")
    data = read_json(place / MANIFEST, name="guard", constants=True)
    task = str(data.get("task", "classification")) if isinstance(data, dict) else "classification"
    known: dict[str, Task] = {one: one for one in TASKS}
    if task not in known:
        raise DataError(f"guard: this version knows no guard of the task {task!r}; it knows {', '.join(TASKS)}")
    return known[task]


def tensors(folder: Path, role: str, made: Sealed) -> dict[str, Tensor]:
    """The tensors of a role.

    Raises
    ------
    DataError
        If the file is missing or not the one that was written.
    """
    expected = made.files.get(role)
    if expected is None or _OWN_FILE.fullmatch(expected.name) is None:
        raise DataError(f"guard: {folder / MANIFEST} names no file of the {role}")
    path = folder / expected.name
    data = read_bytes(path, name="guard")
    if len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise DataError(f"guard: {path} is not the file that was written (size or SHA-256 differs)")
    return unpack(data, name="guard", where=path)


def fill(model: nn.Module, state: Mapping[str, Tensor], made: Sealed) -> nn.Module:
    """Load the weights of a guard into `model`, in evaluation mode.

    Raises
    ------
    ModelError
        If they do not fit it, or it computes something else with them than the guard's network did.
    """
    own = weights_of(model)
    plain = {unwrapped(name): name for name in own}  # it may be compiled where the other was not, or the reverse
    state = {plain.get(unwrapped(name), name): tensor for name, tensor in state.items()}
    if set(own) != set(state) or any(own[name].shape != state[name].shape for name in own):
        wrong = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
        raise ModelError(
            f"model: the guard's weights do not fit it ({', '.join(wrong[:3])}); it was made for "
            f"{made.model or 'another'}"
        )
    model.load_state_dict(state)
    check(to_eval(model), made.answers, made.model)
    return model


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _described(role: str, content: bytes) -> File:
    found = hashlib.sha256(content).hexdigest()
    return File(name=f"{role}-{found[:16]}.safetensors", size=len(content), sha256=found)


def _own(path: Path) -> bool:
    """Whether a file is one that `write` wrote under this name: a sealed manifest, or tensors with the hash they
    name."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.name == MANIFEST:
        try:
            data = read_json(path, name="guard", constants=True)
        except DataError:
            return False
        return isinstance(data, dict) and digest(data | {"digest": ""}) == data.get("digest")
    named = _OWN_FILE.fullmatch(path.name)
    if named:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1])
    return _OWN_TEMPORARY.fullmatch(path.name) is not None  # of a process that was killed


def _named_by(folder: Path) -> set[str]:
    """The files of the guard that `folder` holds now, if any."""
    if not (folder / MANIFEST).exists():
        return set()
    files: dict[str, dict[str, Any]] = read_json(folder / MANIFEST, name="guard", constants=True)["files"]
    return {file["name"] for file in files.values()}
