"""Observations kept in a folder, so that another score, a new report or a guard needs no second pass.

A kept pass is used again only if it is the same pass: same weights, same set, and the model still gives the same
logits on the set's first batch. (A rival's cache went by name alone and returned another network's scores.)
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caveat import heads, observations
from caveat.audits.record import write_atomically
from caveat.errors import CaveatError, DataError
from caveat.observations import Observations
from caveat.types import Batches

__all__ = ["fingerprint", "manifest", "observe"]

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
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({error}); remove the folder to observe anew") from None


def observe(
    model: nn.Module, batches: Batches, *, folder: Path | None, file: str, head: heads.HeadLayer | None, name: str
) -> Observations:
    """Observe a set, or take the kept observations of the very same pass from `folder`."""
    if folder is None:
        return observations.observe(model, batches, features=head is not None, head=head, name=name)
    about = {"model": fingerprint(model), "head": head.name if head else None, "set": _set(batches, name)}
    path = folder / f"{file}.safetensors"
    if manifest(folder).get(file) == about and path.exists():
        kept = _still_the_same(model, batches, path)
        if kept is not None:
            return kept
    observed = observations.observe(model, batches, features=head is not None, head=head, path=path, name=name)
    write_atomically(folder / MANIFEST, json.dumps(manifest(folder) | {file: about}, indent=1))
    return observed


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
