"""Weights as people have them: a file of tensors, a checkpoint around them, names that a wrapper has put a prefix to.

Nothing of a file is ever run: torch files are read by torch's own restricted reader (`weights_only`), which makes
tensors and plain values and refuses the rest.
"""

import argparse
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caveat.errors import DataError, ModelError, known_name
from caveat.evaluation import check_initialised
from caveat.files import reason
from caveat.tensors import MOST_UNPACKED, read_tensors

__all__ = ["load", "read", "state", "unwrapped"]

State = Mapping[str, Tensor]
HARMLESS: list[Any] = [
    argparse.Namespace, pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath,
    np.dtype, np.ndarray, type(np.dtype("float64")), type(np.dtype("float32")), type(np.dtype("int64")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # pyright: ignore[reportAttributeAccessIssue]  # where pickles look
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # pyright: ignore[reportAttributeAccessIssue]
]  # fmt: skip
"""What training scripts keep beside the weights (their options, the best accuracy so far): values without code."""
WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into the names of weights, also within them."""
PLAIN = ("state_dict", "model_state_dict", "model")
"""Where a checkpoint keeps the network as it was trained, whatever else fits (an average of its weights)."""
AVERAGED = "n_averaged"
"""A count that torch's averaged models keep among their weights."""
ELSEWHERE = "/"
"""Marks a name that is not below the prefix looked at; no module's name holds it."""
LISTED = 5
DEEPEST = 4
"""Levels of a checkpoint that are looked through for weights."""


def load(model: nn.Module, path: str | Path, *, key: str | None = None, name: str = "path") -> list[str]:
    """Give a network the weights of a file, or leave it as it was; what was done to make them fit, in sentences.

    Parameters
    ----------
    path
        A safetensors file, or one that `torch.save` wrote, with the weights themselves or a checkpoint that holds
        them under any name.
    key
        Which weights, where a checkpoint holds several that fit (`model_ema`): the name they stand under, or the first
        part of the weights' own names.
    name
        The option or the file's name that an error begins with.

    Names may differ from the network's by a prefix (`module.`, `model.`) and by what DataParallel and torch.compile put
    into them. Of weights that share memory one name is enough, and batch norms may lack the number of batches they have
    seen. Numbers of another precision are converted; whole numbers are no weights of a network of floats.

    Raises
    ------
    DataError
        If the file is missing, damaged, or would need code to be read.
    ModelError
        If no weights of the file fit the network, or several do.
    """
    found = read(path, name=name)
    own = model.state_dict()
    tried = [(where, *_fitted(state, own)) for where, state in found.items() if key in (None, where)]
    if key is not None and not tried:  # then it may be a part of the names
        parts = {where: _below(state, key) for where, state in found.items()}
        if not any(parts.values()):
            known_name(
                "--weights-key" if name.startswith("--") else f"{name}: key",
                key,
                [where or "(the file itself)" for where in found],
            )
        tried = [(where, *_fitted(state, own)) for where, state in parts.items() if state]
    fits = {where: (state, notes) for where, state, notes, problem in tried if not problem}
    if not fits:
        raise ModelError(f"{name}: {path} does not fit the model: {min((p for *_, p in tried), key=len)}")
    where = next((place for place in ("", *PLAIN) if place in fits), next(iter(fits)) if len(fits) == 1 else None)
    if where is None:
        raise ModelError(
            f"{name}: {path} holds several weights that fit the model ({', '.join(fits)}); name those to use with "
            "--weights-key (key=)"
        )
    state, notes = fits[where]
    model.load_state_dict(state)
    others = [other for other in fits if other != where]
    return [
        *([f"{name}: the weights under {where!r} of the checkpoint were used"] if where else []),
        *([f"{name}: {', '.join(map(repr, others))} would fit too (--weights-key)"] if others else []),
        *(f"{name}: {note}" for note in notes),
    ]


def state(model: nn.Module) -> dict[str, Tensor]:
    """The weights and kept buffers of a network by name, as a file or a posterior holds them.

    Raises
    ------
    ModelError
        If they have no shape yet, or can't be taken out of the network: it is quantised or frozen.
    """
    check_initialised(model)
    found: dict[str, Any] = dict(model.state_dict())
    packed = next((name for name, value in found.items() if not isinstance(value, Tensor)), None)
    if packed is not None:
        raise ModelError(
            f"model: its {packed!r} is no tensor (weights of a quantised network are packed), so that its weights can "
            "be neither kept in a file nor exchanged: give the network before it was quantised"
        )
    if not found and any(isinstance(layer, torch.jit.ScriptModule) for layer in model.modules()):
        raise ModelError(
            "model: its weights are constants of its code (torch.jit.freeze), so that they can be neither kept in a "
            "file nor exchanged: give the network before it was frozen"
        )
    return found


def read(path: str | Path, *, name: str = "path") -> dict[str, State]:
    """All sets of named tensors in a file, by the name they stand under; '' is the file itself. On the CPU.

    Raises
    ------
    DataError
        If the file is missing, damaged, would need code to be read, or holds no tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise DataError(f"{name}: cannot read {path} ({error.strerror or error})") from None
    if start not in (b"PK", b"\x80\x02", b"\x80\x04"):  # a zip archive, or a pickle as torch wrote before 1.6
        return _parts(read_tensors(path, name=name))
    found = dict(_states(_unpickled(path, name)))
    if not found:
        raise DataError(f"{name}: {path} holds no weights by name; save model.state_dict()")
    return found


def _parts(tensors: State) -> dict[str, State]:
    """Those of `caveat train`'s checkpoints, which hold the network beside what resuming needs, by where they stand."""
    if not tensors or not all(key.startswith("/") for key in tensors):
        return {"": tensors}
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        where, _, own = key[1:].rpartition("/")
        found.setdefault(where.replace("/", "."), {})[own] = tensor
    return {**found}


def _unpickled(path: Path, name: str) -> Any:
    """What `torch.save` wrote, without running any of it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > max(MOST_UNPACKED, 2 * path.stat().st_size):
                raise DataError(f"{name}: {path} unpacks to {unpacked} bytes; at most {MOST_UNPACKED} are read")
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of another protocol: what cannot be read is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # torch's own, and nearly anything from a damaged file
        text = str(error)
        if "TorchScript" in text or "torch.jit" in text:
            why = "it is TorchScript, which is code"
        elif "GLOBAL " in text:
            why = f"it needs {text.partition('GLOBAL ')[2].split()[0]}, and reading that may run code"
        else:
            why = f"it is damaged, or no file of torch ({reason(error)})"
        raise DataError(
            f"{name}: cannot read {path}: {why}; where you trust it, save model.state_dict() with torch.save, or as "
            "safetensors"
        ) from None


def _states(value: Any, where: str = "") -> Iterator[tuple[str, State]]:
    """Mappings of names to tensors within a checkpoint, also in its lists; an optimizer's are numbered."""
    if isinstance(value, list | tuple):
        value = {str(place): one for place, one in enumerate(value)}
    if not isinstance(value, Mapping):
        return
    tensors = {key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, Tensor)}
    if tensors:
        yield where, tensors
    if where.count(".") < DEEPEST - 1:
        for key, one in value.items():
            if isinstance(key, str) and not isinstance(one, Tensor):
                yield from _states(one, f"{where}.{key}" if where else key)


def _below(state: State, prefix: str) -> State:
    start = prefix.rstrip(".") + "."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _fitted(state: State, own: State) -> tuple[State, list[str], str]:
    """The weights under the network's names, what was done for it, and what does not fit ('' if all does)."""
    problems: list[str] = []
    fits: list[tuple[State, list[str], str]] = []
    for rename, note in _renamings(state, own):
        complete = _completed({rename(key): value for key, value in state.items()}, own)
        left = {key: value for key, value in complete.items() if key not in own}
        if problem := _misfit(complete, own, left):
            problems.append(problem)
            continue
        notes = [note] if note else []
        if left:
            notes.append(f"{len(left)} tensors of the file were left out: {_short(left)}")
        fits.append(({key: complete[key] for key in own}, notes, ""))
        if rename in (str, unwrapped):
            break
    if len(fits) > 1:
        texts = "; ".join(notes[0] for _, notes, _ in fits)
        return {}, [], f"several parts of its weights do ({texts}); name the part with --weights-key (key=)"
    return fits[0] if fits else ({}, [], min(problems, key=len))


def _renamings(state: State, own: State) -> Iterator[tuple[Callable[[str], str], str]]:
    """Ways to read the names of a file, the plainest first, each with the sentence that tells it."""
    yield str, ""
    words = sorted({part for key in state for part in key.split(".") if part in WRAPPERS})
    if words:
        yield unwrapped, f"{' and '.join(map(repr, words))} was taken out of the names of the weights"
    names, mine = [unwrapped(key) for key in state], list(own)
    if not mine or not names or set(names) & set(mine):
        return
    for prefix in sorted({name.removesuffix(mine[0]) for name in names if name.endswith(f".{mine[0]}")}):
        yield partial(_without, prefix=prefix), f"the prefix {prefix!r} was taken from the names of the weights"
    for prefix in sorted({name.removesuffix(names[0]) for name in mine if name.endswith(f".{names[0]}")}):
        yield partial(_with, prefix=prefix), f"the prefix {prefix!r} was put before the names of the weights"


def unwrapped(key: str) -> str:
    """A name without what DataParallel and torch.compile put into it."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _with(key: str, prefix: str) -> str:
    return prefix + unwrapped(key)


def _without(key: str, prefix: str) -> str:
    """The name after a prefix; a name without it is none of the network's."""
    key = unwrapped(key)
    return key.removeprefix(prefix) if key.startswith(prefix) else ELSEWHERE + key


def _completed(state: State, own: State) -> dict[str, Tensor]:
    """With the other names of weights that share memory, and with counters of batches that old files lack."""
    places = {key: (value.data_ptr(), value.shape, value.stride()) for key, value in own.items() if value.numel()}
    given = {places[key]: state[key] for key in state if key in places}
    return {
        **{key: value for key, value in own.items() if key.endswith("num_batches_tracked")},
        **{key: given[place] for key, place in places.items() if place in given},
        **state,
    }


def _misfit(state: State, own: State, left: State) -> str:
    """Why weights are not the network's; '' if they are. Tensors outside of the prefix may be left out, others not."""
    missing = [key for key in own if key not in state]
    foreign = [key for key in left if not key.startswith(ELSEWHERE) and key != AVERAGED]
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or foreign or shapes:
        told = [f"the file lacks {_short(missing)}"] if missing else []
        told += [f"the model has no {_short(foreign)}"] if foreign else []
        told += [
            f"{key} has shape {tuple(state[key].shape)}, the model's {tuple(own[key].shape)}" for key in shapes[:2]
        ]
        return "; ".join(told)
    kind = next((key for key in own if state[key].is_floating_point() != own[key].is_floating_point()), None)
    if kind is not None:
        return (
            f"{kind} is {state[kind].dtype}, the model has {own[kind].dtype}: whole numbers need the scale they were "
            "quantised with; save the floats"
        )
    return ""


def _short(names: "list[str] | State") -> str:
    listed = [key.removeprefix(ELSEWHERE) for key in names]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
