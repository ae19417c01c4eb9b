"""Observations kept in a folder, so that another score, a new report or a guard needs no second pass.

A kept pass is used again only if it is the same pass: same weights, head, probes and version, every input and label
the same, and the model still gives the same logits on the set's first batch.
"""

import hashlib
import json
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import __version__, heads, observations
from caveat.audits.assess import split
from caveat.errors import CaveatError, DataError, OptionError
from caveat.files import parse_json, read_json, write_atomically
from caveat.guard import likeness
from caveat.inputs import check, fingerprints
from caveat.observations import Observations, Outputs, apart
from caveat.posteriors.network import Predictive
from caveat.tensors import digest, read_tensors, write_tensors
from caveat.types import Batches, Probe
from caveat.weights import state

__all__ = [
    "answers",
    "begin",
    "calibration_rows",
    "file_name",
    "fingerprint",
    "finish",
    "folder",
    "forms",
    "keep_outputs",
    "load",
    "manifest",
    "observe",
    "ood",
    "outliers",
    "outputs",
    "task",
    "undone_if_refused",
    "weights",
]

MANIFEST = "manifest.json"
OWN = ("head", "model", "outliers", "test", "train")
"""Files that are no OOD or unlabelled set."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of parameters and buffers, and over how posterior samples are drawn."""
    return digest(state(model), model.description if isinstance(model, Predictive) else {})


def manifest(folder: Path) -> dict[str, Any]:
    """What is kept in `folder`: file name to what it was observed from; empty if nothing is."""
    path = folder / MANIFEST
    found = read_json(path, name="observations") if path.exists() else {}
    if not isinstance(found, dict):
        raise DataError(f"observations: {path} is no manifest of ours; remove the folder to observe anew")
    return found


def observe(
    model: nn.Module,
    batches: Batches,
    *,
    folder: Path | None,
    file: str,
    head: heads.HeadLayer | None,
    name: str,
    probes: Mapping[str, Probe],
    dtype: str = "float32",
) -> Observations:
    """Observe a set, or take the kept observations of the very same pass, in the same precision, from `folder`."""
    if folder is None:
        return observations.observe(model, batches, features=head is not None, head=head, probes=probes, name=name)
    about = {
        "model": fingerprint(model), "head": head.name if head else None, "version": __version__,
        "probes": {probe_name: repr(probe) for probe_name, probe in probes.items()}, "dtype": dtype,
    }  # fmt: skip
    path = folder / f"{file}.safetensors"
    entry = manifest(folder).get(file, {})
    if {key: entry.get(key) for key in about} == about and _intact(path, entry):
        kept = _still_the_same(model, batches, path, name)
        if kept is not None:
            return kept
    observed = observations.observe(
        model, batches, features=head is not None, head=head, probes=probes, path=path, name=name
    )
    write_atomically(
        folder / MANIFEST, json.dumps(manifest(folder) | {file: about | {"sha256": _hash(path)}}, indent=1)
    )
    return observed


@contextmanager
def undone_if_refused(audit: Path) -> Generator[None]:
    """Remove the observations in an audit's folder if a `CaveatError` ends the block and there were none before.

    Those whose record is written stay: with it a page and a guard can be made.
    """
    place = audit / "observations"
    there = place.exists()
    try:
        yield
    except CaveatError:
        if not there and not _recorded(audit):
            shutil.rmtree(place, ignore_errors=True)
        raise


def _recorded(audit: Path) -> bool:
    try:
        return (audit / "record.json").exists() and folder(audit).exists()
    except DataError:  # of another audit, or the observations are not whole
        return False


def begin(place: Path) -> None:
    """Mark what is kept in the folder as not whole: an audit that is stopped must not be taken for one that ended."""
    kept = manifest(place)
    if "about" in kept:
        write_atomically(place / MANIFEST, json.dumps({k: v for k, v in kept.items() if k != "about"}, indent=1))


def finish(
    model: nn.Module, head: heads.HeadLayer | None, place: Path, sets: Iterable[str], about: dict[str, Any]
) -> str:
    """Keep the network's weights and head beside the observations of `sets`, and mark the folder as whole.

    Gives the hash by which the audit's record names these observations.

    Whoever loads it sees whether each file is the one that this audit wrote: another one may have written here since.
    """
    write_tensors(place / "model.safetensors", state(model))
    files = ["model", *map(file_name, sets)]
    if head is not None:
        about = about | {"head": {"name": head.name, "pooled": head.pooled}}
        if (weights := head.weights) is not None:
            weight, bias = (part.contiguous() for part in weights)
            write_tensors(place / "head.safetensors", {"weight": weight, "bias": bias})
            files.append("head")
    if (known := likeness.answers(model, about["shape"], about["largest"])) is not None:
        about = about | {"answers": known.model_dump()}
    hashes = {file: _hash(place / f"{file}.safetensors") for file in files}
    about = parse_json(json.dumps(about | {"files": hashes}), name="observations", where=MANIFEST, constants=True)
    write_atomically(place / MANIFEST, json.dumps(manifest(place) | {"about": about}, indent=1))
    return _named(about)


def _named(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def folder(audit: Path) -> Path:
    """Where an audit keeps its observations.

    Raises
    ------
    DataError
        If there are none, or the record beside them is that of another audit: one of the two was stopped.
    """
    place = audit / "observations"
    if not (place / MANIFEST).exists():
        raise DataError(f"audit: {audit} holds no observations; make them with  caveat audit ... -o {audit}")
    if (audit / "record.json").exists():
        record = read_json(audit / "record.json", name="audit", constants=True)
        if not isinstance(record, dict) or record.get("observations") != _named(_about(place)):
            raise DataError(
                f"audit: the record in {audit} is not that of the observations beside it (an audit was stopped before "
                "its end): audit again"
            )
    return place


def load(place: Path) -> tuple[Observations, Observations | None, heads.HeadLayer | None, dict[str, Any]]:
    """The calibration split, training observations, head, and what is known of the model (`classes`, `shape`, `model`).

    Training observations are those that are not in the test set too, as the audit itself took them.

    Raises
    ------
    DataError
        If the audit did not end, or a file is not the one that it wrote.
    """
    about = _about(place)
    head = None
    if "head" in about:
        weights = read_tensors(_checked(place, "head", about), name="audit") if "head" in about["files"] else None
        linear = None if weights is None else (weights["weight"], weights["bias"])
        head = heads.HeadLayer(about["head"]["name"], about["head"]["pooled"], linear)
    test = _read(place, "test", about)
    train = apart(_read(place, "train", about), test) if about["train"] else None
    return test.part(calibration_rows(len(test), about)), train, head, about


def calibration_rows(count: int, about: Mapping[str, Any]) -> Tensor:
    """The positions of the calibration split in the test set, of `count` samples."""
    return split(count, about["calibration_share"], about["seed"])[0]


def keep_outputs(place: Path, name: str, seen: Outputs) -> None:
    """Keep the outputs of a regression network for a set; `finish` then marks the folder as whole."""
    found = {"values": seen.values.contiguous(), "labels": seen.labels, "fingerprints": seen.fingerprints}
    write_tensors(place / f"{file_name(name)}.safetensors", found)


def task(place: Path) -> str:
    """Of which task the audit was whose observations lie there."""
    return str(_about(place).get("task", "classification"))


def outputs(place: Path) -> tuple[Outputs, dict[str, Any]]:
    """A regression network's outputs for the calibration split, and what is known of the model.

    Raises
    ------
    DataError
        If the audit did not end, or a file is not the one that it wrote.
    """
    about = _about(place)
    found = read_tensors(_checked(place, "test", about), name="audit")
    seen = Outputs(found["values"], found["labels"], found["fingerprints"])
    return seen.part(calibration_rows(len(seen), about)), about


def weights(place: Path) -> dict[str, Tensor]:
    """The network's weights."""
    return read_tensors(_checked(place, "model", _about(place)), name="audit")


def answers(place: Path) -> likeness.Answers | None:
    """What the network gave for generated inputs, by which a guard knows it again."""
    kept = _about(place).get("answers")
    return None if kept is None else likeness.Answers.model_validate(kept)


def forms(place: Path) -> dict[str, Any]:
    """What makes a posterior, and the form that the network has, again from the weights."""
    about = _about(place)
    return {"posterior": about["posterior"], "form": about.get("adapted")}


def outliers(place: Path) -> Observations | None:
    """Observations of the auxiliary OOD inputs, if the audit had any."""
    about = _about(place)
    return _read(place, "outliers", about) if about["outliers"] else None


def ood(place: Path, name: str) -> Observations:
    """Observations of one of the audit's OOD (or unlabelled) sets.

    Raises
    ------
    OptionError
        If the audit had no set of that name.
    """
    about = _about(place)
    seen = [file for file in about["files"] if file not in OWN]
    if file_name(name) not in seen:
        raise OptionError(
            f"against: this audit saw no set {name!r}; it saw {', '.join(seen) or 'no OOD set'}: audit again, for "
            "example with --ood turned=quarter-turned"
        )
    return _read(place, file_name(name), about)


def _about(place: Path) -> dict[str, Any]:
    about = manifest(place).get("about")
    if not isinstance(about, dict) or "files" not in about:
        raise DataError(f"audit: {place} is not whole (an audit was stopped, or is of another version); audit again")
    return about


def _read(place: Path, file: str, about: Mapping[str, Any]) -> Observations:
    return observations.load(_checked(place, file, about))


def _checked(place: Path, file: str, about: Mapping[str, Any]) -> Path:
    path = place / f"{file}.safetensors"
    if not path.exists() or _hash(path) != about["files"].get(file):
        raise DataError(f"audit: {path} is not the file that this audit wrote (SHA-256 differs); audit again")
    return path


def _intact(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.exists() and _hash(path) == entry.get("sha256")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(name: str) -> str:
    """A set's name as a file name: what is not a letter, digit, - or _ becomes its code."""
    return "".join(ch if ch.isalnum() or ch in "-_" else f"%{ord(ch):x}" for ch in name)


def _still_the_same(model: nn.Module, batches: Batches, path: Path, name: str) -> Observations | None:
    """The kept observations if every input and label is the one observed, and the first batch gives the same logits.

    The set is read once for that; what is saved is the network's work.
    """
    kept = observations.load(path)
    start, first = 0, None
    for batch in batches:
        inputs, labels = check(batch, name)
        first = first or (inputs, labels)
        part = slice(start, start + len(inputs))
        start += len(inputs)
        if kept.fingerprints is None or not torch.equal(kept.fingerprints[part], fingerprints(inputs)):
            return None
        if not torch.equal(kept.labels[part], labels.long().cpu()):
            return None
    if first is None or start != len(kept):
        return None
    again = observations.observe(model, [first], features=False).logits
    same = kept.logits[: len(again)]
    return kept if same.shape == again.shape and torch.allclose(same, again, rtol=1e-3, atol=1e-3) else None
