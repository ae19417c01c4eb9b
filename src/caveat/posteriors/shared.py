"""The part of a forward pass that all draws have in common runs once.

A network is run under a mode that sees every call of a torch function. Up to the first call that is random (a dropout)
or that touches a drawn weight, results are the same for every draw: they are written down in the first run and given
back in the later ones. Nothing about the network need be known for that: it works for functional code and for any
architecture whose order of calls does not change from run to run, which is checked.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Act", "Forward", "Touches", "plain", "random_state", "runs", "shareable"]

Touches: TypeAlias = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], bool]
"""Whether this call differs from draw to draw."""
Act: TypeAlias = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
"""Make this call, in the way of a draw."""
Forward: TypeAlias = Callable[[int, Tensor], Tensor]
"""One pass of draw `i` over inputs."""


class _ChangedError(Exception):
    """The network made other calls than in the first run."""


class _Seen(TorchFunctionMode):
    """Watches one run; writes down what comes before the first call that differs."""

    def __init__(self, touches: Touches, act: Act, inputs: Tensor) -> None:
        super().__init__()
        self.touches, self.act, self.inputs = touches, act, inputs
        self.calls: list[tuple[Any, Any]] = []
        self.open = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.open and self.touches(func, args, kwargs):
            self._close()
        if self.open:
            # a graph that is traced holds no chance
            before = None if torch.compiler.is_exporting() else random_state(self.inputs.device)
            result = func(*args, **kwargs)
            if before is None or torch.equal(before, random_state(self.inputs.device)):
                self.calls.append((func, result))
            else:  # noise of the network's own: from here on draws differ
                self._close()
            return result
        return self.act(func, args, kwargs)

    def _close(self) -> None:
        self.open = False
        self.calls = [_kept(self.calls, number) for number in range(len(self.calls))]
        self.inputs = self.inputs.clone()  # as the common part leaves them


class _Again(TorchFunctionMode):
    """Gives back what was written down, then goes on by itself."""

    def __init__(self, calls: Sequence[tuple[Any, Any]], act: Act) -> None:
        super().__init__()
        copies: dict[int, Any] = {}
        for _, result in calls:
            if isinstance(result, Tensor) and id(result) not in copies:
                copies[id(result)] = result.clone()  # what comes later may change it in place
        self.calls = [(func, copies.get(id(result), result)) for func, result in calls]
        self.at, self.act = 0, act

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.at < len(self.calls):
            expected, result = self.calls[self.at]
            if func is not expected:
                raise _ChangedError
            self.at += 1
            return result
        return self.act(func, args, kwargs or {})


class _Plain(TorchFunctionMode):
    """Runs everything, in the way of a draw."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.act(func, args, kwargs or {})


def random_state(device: torch.device) -> Tensor:
    """Of the default generator there: it changes exactly if something random was done."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _kept(calls: Sequence[tuple[Any, Any]], number: int) -> tuple[Any, Any]:
    """A call as later runs need it: without its result, where the network itself has let go of it."""
    func, result = calls[number]
    # three hold it in any case: the tuple in `calls`, the name `result` and the argument of getrefcount
    if isinstance(result, Tensor) and sys.getrefcount(result) <= 3:
        return func, result.new_empty(0)
    return func, result


def runs(forward: Forward, inputs: Tensor, draws: Sequence[int], touches: Touches, act: Act) -> list[Tensor]:
    """The outputs of all draws for one chunk of inputs, with the common part run once where that is possible."""
    seen = _Seen(touches, act, inputs.clone())
    with seen:
        first = forward(draws[0], seen.inputs)
    # tensors that are traced have no place in memory; whether an exported graph is right is seen by running it
    apart = torch.compiler.is_exporting() or _separate([*seen.calls, (None, seen.inputs)])
    if seen.open or not seen.calls or not apart:
        return [first, *(plain(forward, inputs, draw, act) for draw in draws[1:])]
    outputs = [first]
    for draw in draws[1:]:
        chunk = seen.inputs.clone()  # outside of the mode, which counts every call
        with _Again(seen.calls, act):
            outputs.append(forward(draw, chunk))
    return outputs


def plain(forward: Forward, inputs: Tensor, draw: int, act: Act) -> Tensor:
    """One draw, run from the start."""
    chunk = inputs.clone()
    with _Plain(act):
        return forward(draw, chunk)


def shareable(forward: Forward, inputs: Tensor, touches: Touches, act: Act, restart: Callable[[], None]) -> bool:
    """Whether sharing gives what running everything gives, seen on a few inputs. `restart` resets all randomness."""
    try:
        restart()
        shared = runs(forward, inputs, [0, 1], touches, act)
        restart()
        whole = [plain(forward, inputs, draw, act) for draw in (0, 1)]
    except Exception:  # whatever goes wrong when results are given back (or is made of it on the way up here)
        return False
    return all(torch.equal(a, b) for a, b in zip(shared, whole, strict=True))


def _separate(calls: Sequence[tuple[Any, Any]]) -> bool:
    """Whether no two kept tensors share memory: a copy of each would part them."""
    places: dict[int, int] = {}
    for _, result in calls:
        if isinstance(result, Tensor) and result.numel():
            place = result.untyped_storage().data_ptr()
            if places.setdefault(place, id(result)) != id(result):
                return False
    return True
