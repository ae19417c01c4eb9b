"""Observations kept in a folder, so that another score, a new report or a guard needs no second pass.

A kept pass is used again only if it is the same pass: same weights, same set, and the model still gives the same
logits on the set's first batch. (A rival's cache went by name alone and returned another network's scores.)
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caveat import heads, observations
from caveat.errors import CaveatError, DataError, OptionError
from caveat.files import read_json, write_atomically
from caveat.observations import Observations
from caveat.tensors import read_tensors, write_tensors
from caveat.types import Batches, Probe

__all__ = ["file_name", "fingerprint", "folder", "keep_model", "load", "manifest", "observe", "ood", "outliers"]

MANIFEST = "manifest.json"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


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
) -> Observations:
    """Observe a set, or take the kept observations of the very same pass from `folder`."""
    if folder is None:
        return observations.observe(model, batches, features=head is not None, head=head, probes=probes, name=name)
    about = {
        "model": fingerprint(model), "head": head.name if head else None, "set": _set(batches, name),
        "probes": {probe_name: repr(probe) for probe_name, probe in probes.items()},
    }  # fmt: skip
    path = folder / f"{file}.safetensors"
    if manifest(folder).get(file) == about and path.exists():
        kept = _still_the_same(model, batches, path)
        if kept is not None:
            return kept
    observed = observations.observe(
        model, batches, features=head is not None, head=head, probes=probes, path=path, name=name
    )
    write_atomically(folder / MANIFEST, json.dumps(manifest(folder) | {file: about}, indent=1))
    return observed


def folder(audit: Path) -> Path:
    """Where an audit keeps its observations.

    Raises
    ------
    DataError
        If there are none.
    """
    place = audit / "observations"
    if not (place / MANIFEST).exists():
        raise DataError(f"audit: {audit} holds no observations; make them with  caveat audit ... -o {audit}")
    return place


def keep_model(model: nn.Module, head: heads.HeadLayer | None, place: Path, about: dict[str, Any]) -> None:
    """Keep the network's weights and head beside the observations, so that a guard can be made from them."""
    write_tensors(place / "model.safetensors", model.state_dict())
    if head is not None:
        weight, bias = head.head
        write_tensors(place / "head.safetensors", {"weight": weight, "bias": bias})
        about = about | {"head": {"name": head.name, "pooled": head.pooled}}
    write_atomically(place / MANIFEST, json.dumps(manifest(place) | {"about": about}, indent=1))


def load(place: Path) -> tuple[Observations, Observations | None, heads.HeadLayer | None, dict[str, Any]]:
    """In-distribution and training observations, head, and what is known about the model (`classes`, `shape`, `model`).

    `train` says whether this audit had a training set: one that an earlier audit left in the folder does not count.
    """
    about = manifest(place).get("about")
    if about is None or not (place / "test.safetensors").exists():
        raise DataError(f"audit: {place} is not whole; audit again")
    fit = observations.load(place / "train.safetensors") if about["train"] else None
    head = None
    if "head" in about:
        weights = read_tensors(place / "head.safetensors", name="audit")
        head = heads.HeadLayer(about["head"]["name"], about["head"]["pooled"], (weights["weight"], weights["bias"]))
    return observations.load(place / "test.safetensors"), fit, head, about


def outliers(place: Path) -> Observations | None:
    """Observations of the auxiliary OOD inputs, if the audit had any."""
    about = manifest(place).get("about", {})
    return observations.load(place / "outliers.safetensors") if about.get("outliers") else None


def ood(place: Path, name: str) -> Observations:
    """Observations of one of the audit's OOD (or unlabelled) sets.

    Raises
    ------
    OptionError
        If the audit had no set of that name.
    """
    about = manifest(place)
    own = about["test"]["model"]  # an earlier audit of another network may have left its sets there
    seen = [
        file for file in about if file not in ("about", "test", "train", "outliers") and about[file]["model"] == own
    ]
    if file_name(name) not in seen:
        raise OptionError(
            f"against: this audit saw no set {name!r}; it saw {', '.join(seen) or 'no OOD set'}: audit again, for "
            "example with --ood turned=quarter-turned"
        )
    return observations.load(place / f"{file_name(name)}.safetensors")


def file_name(name: str) -> str:
    """A set's name as a file name: what is not a letter, digit, - or _ becomes its code."""
    return "".join(ch if ch.isalnum() or ch in "-_" else f"%{ord(ch):x}" for ch in name)


def _set(batches: Batches, name: str) -> str:
    return f"{getattr(batches, 'name', name)} ({len(batches) if hasattr(batches, '__len__') else '?'})"  # pyright: ignore[reportArgumentType]  # asked for just before


def _still_the_same(model: nn.Module, batches: Batches, path: Path) -> Observations | None:
    """The kept observations if the first batch still gives their logits and labels."""
    try:
        kept = observations.load(path)
    except CaveatError:
        return None
    first = next(iter(batches), None)
    if first is None:
        return None
    again = observations.observe(model, [first], features=False)
    size = len(again)
    same = (
        kept.logits[:size].shape == again.logits.shape
        and torch.equal(kept.labels[:size], again.labels)
        and torch.allclose(kept.logits[:size], again.logits, rtol=1e-3, atol=1e-3)
    )
    return kept if same else None
