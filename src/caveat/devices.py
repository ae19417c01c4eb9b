"""Where a network runs and in which precision: the one home for choosing a device, and for autocast.

What is computed from a network's outputs is never in less than single precision: autocast is on inside of the network
alone.
"""

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from caveat.errors import ModelError, OptionError, known_name
from caveat.precision import wide
from caveat.types import Drawing

__all__ = ["AUTO", "DTYPES", "Place", "arriving", "autocast", "available", "check", "choose", "of", "running", "title"]

AUTO = "auto"
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
"""Names of precisions; in the two narrow ones a network runs under autocast, its weights staying as they are."""

_open = threading.local()
_lock = threading.Lock()
_tf32: list[tuple[bool, bool]] = []
"""What those who are inside now found the switches of TF32 to be, the first of them first."""


@dataclass(frozen=True)
class Place:
    """Where a network runs, and in which precision."""

    device: torch.device
    dtype: str
    """That of autocast, or of its weights."""
    autocast: str
    """What makes it run so again: the precision of autocast, `float32` where it is off."""

    @property
    def settings(self) -> dict[str, str]:
        """For a record."""
        return {"device": title(self.device), "dtype": self.dtype}


def available() -> list[str]:
    """The devices of this machine, fastest kind first; the CPU is always there."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{number}" for number in range(cards))] if cards else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def choose(device: str | torch.device) -> torch.device:
    """The device of that name; `auto` is CUDA if it is there, else MPS, else the CPU.

    Raises
    ------
    OptionError
        If this machine has no such device; the message names those it has.

    Example
    -------
    >>> choose("cpu")
    device(type='cpu')
    """
    there = available()
    name = str(device)
    if name not in (AUTO, *there):
        raise OptionError(f"device: there is no {name!r} on this machine; expected {AUTO}, {', '.join(there)}")
    return torch.device(there[0] if name == AUTO else name)


def check(device: str | torch.device | None, dtype: str | None) -> torch.device | None:
    """The device that is meant, if any; refuse one that is not there, and another precision.

    Raises
    ------
    OptionError
        If there is no such device or precision.
    """
    if dtype is not None:
        known_name("dtype", dtype, DTYPES)
    return None if device is None else choose(device)


def title(device: torch.device) -> str:
    """The device for people: a GPU with its name."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def of(model: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU for one without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def running(model: nn.Module, device: str | torch.device | None = None, dtype: str | None = None) -> Generator[Place]:
    """Within, the network is on the device and runs in the precision; afterwards it is where it was.

    Parameters
    ----------
    device
        A name (`choose`); None leaves the network where it is.
    dtype
        `bfloat16` and `float16` run the network under autocast, `float32` without; None is as the caller has it: if an
        autocast of his is on, it is on inside of the network, and there alone.

    Convolutions and products in single precision really are: TF32, which CUDA takes for convolutions unless told
    otherwise, is off meanwhile, so that numbers are those of a CPU up to rounding.

    Raises
    ------
    OptionError
        If there is no such device or precision.
    ModelError
        If the network is spread over several devices, and one is asked for.
    """
    wanted, before = check(device, dtype), of(model)
    if wanted is not None:
        places = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
        if len(places) > 1:
            raise ModelError(
                f"device: the network is spread over {', '.join(sorted(map(str, places)))}; leave the device out, or "
                "bring it to one device first"
            )
        model.to(wanted)
    place = before if wanted is None else wanted
    narrow = _narrow(dtype, place)
    floats = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    try:
        with _without_tf32(), torch.autocast(place.type, enabled=False), autocast(model, narrow):
            yield Place(place, _name(narrow or next(floats, torch.float32)), _name(narrow or torch.float32))
    finally:
        if wanted is not None:
            model.to(before)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _narrow(dtype: str | None, place: torch.device) -> torch.dtype | None:
    """The precision of autocast; None where there is none."""
    if dtype is None:
        return torch.get_autocast_dtype(place.type) if torch.is_autocast_enabled(place.type) else None
    return None if dtype == "float32" else DTYPES[dtype]


@contextmanager
def autocast(model: nn.Module, dtype: torch.dtype | None, *, widen: bool = False) -> Generator[None]:
    """Within, every forward pass of the network runs under autocast of `dtype`, and nothing outside of it does.

    With `widen` a tensor that it gives is in single precision at least: for losses. Hooks do it, so that the names of
    its weights and layers stay; an ensemble or another posterior is asked through its networks.
    """
    if dtype is None:
        yield
        return
    roots = [*model.children()] if isinstance(model, Drawing) else [model]
    kind = of(model).type
    handles = [root.register_forward_pre_hook(partial(_enter, kind, dtype), prepend=True) for root in roots]
    handles += [root.register_forward_hook(partial(_leave, widen), prepend=True, always_call=True) for root in roots]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stack() -> list[torch.autocast]:
    if not hasattr(_open, "stack"):
        _open.stack = []
    return _open.stack


def _enter(kind: str, dtype: torch.dtype, *_: object) -> None:
    context = torch.autocast(kind, dtype=dtype)
    context.__enter__()
    _stack().append(context)


def _leave(widen: bool, _: nn.Module, __: object, output: object) -> Tensor | None:
    _stack().pop().__exit__(None, None, None)
    return wide(output) if widen and isinstance(output, Tensor) else None


@contextmanager
def _without_tf32() -> Generator[None]:
    """Off while anybody is inside: the switches are the process's, and threads that serve a guard overlap."""
    with _lock:
        _tf32.append((bool(torch.backends.cudnn.allow_tf32), bool(torch.backends.cuda.matmul.allow_tf32)))
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        with _lock:
            before = _tf32.pop()
            if not _tf32:  # the last to leave: what the first to come found
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def arriving(signals: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Start moving tensors of one device to the CPU; the function that is given waits until they are there.

    From CUDA nothing waits before that, so that the next batch can be on its way meanwhile.
    """
    if not any(tensor.device.type == "cuda" for tensor in signals.values()):
        here = {name: tensor.cpu() for name, tensor in signals.items()}
        return lambda: here
    moving = {name: tensor.to("cpu", non_blocking=True) for name, tensor in signals.items()}
    done = torch.cuda.Event()
    done.record()

    def wait() -> dict[str, Tensor]:
        done.synchronize()
        return {name: tensor.clone() for name, tensor in moving.items()}  # out of the locked memory it arrived in

    return wait
