"""What of a network is random in training, switched on while the rest stays as it is in evaluation: MC dropout."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from caveat import evaluation
from caveat.posteriors.shared import Forward, plain, random_state

__all__ = ["dropping", "first_axis", "masked", "random_layers", "scale_and_shift"]

DROPOUTS = {
    functional.dropout, functional.alpha_dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d,
    functional.feature_alpha_dropout, torch.dropout, torch.alpha_dropout, torch.feature_dropout,
}  # fmt: skip
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


def dropping(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, on: bool = True, rows: int = 1
) -> Callable[[], Any] | None:
    """The same call with its dropout switched on (or off); None if it drops nothing out.

    Of `rows` inputs along the first axis all lose the same entries.
    """
    if func in DROPOUTS:
        rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        # without "inplace": a draw must not change what other draws share
        drop = partial(_dropped, func, rate, on)
        return partial(_alike, drop, _values(args, kwargs), rows) if rate > 0 else None
    if func is functional.multi_head_attention_forward:
        rate = kwargs.get("dropout_p", args[10] if len(args) > 10 else 0.0)
        return partial(func, *args, **(dict(kwargs) | {"training": on})) if rate > 0 else None
    if getattr(func, "__name__", "") in RECURRENT and not kwargs:
        at = next((number for number, value in enumerate(args) if isinstance(value, float)), None)
        if at is not None and args[at] > 0:
            return partial(func, *args[: at + 1], on, *args[at + 2 :])
    return None


def first_axis(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """The length of what a dropout function drops entries of; None for attention and recurrent layers."""
    values = _values(args, kwargs)
    return len(values) if func in DROPOUTS and values.ndim else None


def scale_and_shift(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], on: Callable[[], Any]
) -> tuple[Any, tuple[Tensor, Tensor] | None]:
    """What `on`, a call that `dropping` gave, drops out, and its masks: it gives values * scale + shift.

    None in place of the masks where it is no matter of the entries of one tensor (attention, recurrent layers).
    """
    if func not in DROPOUTS:
        return on(), None
    values = _values(args, kwargs)
    state = random_state(values.device)

    def dropped(of: Tensor) -> Tensor:
        torch.set_rng_state(state)
        given = dict(kwargs) | {"input": of} if "input" in kwargs else kwargs
        call = dropping(func, args if "input" in kwargs else (of, *args[1:]), given)
        return on() if call is None else call()

    shift = dropped(torch.zeros_like(values))
    scale = dropped(torch.ones_like(values)) - shift
    return dropped(values), (scale, shift)


def masked(args: Sequence[Any], kwargs: Mapping[str, Any], scale: Tensor, shift: Tensor) -> Tensor:
    """The values that a dropout function is called on, dropped out by the masks of one input."""
    values = _values(args, kwargs)
    rows = values.unflatten(0, (-1, scale.shape[0]))
    return (rows * scale + shift).flatten(0, 1)


def _values(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return kwargs.get("input", args[0] if args else None)


def _dropped(func: Callable[..., Any], rate: float, on: bool, values: Tensor) -> Tensor:
    return func(values, rate, on)


def _alike(drop: Callable[[Tensor], Tensor], values: Tensor, rows: int) -> Tensor:
    if rows < 2 or values.ndim == 0 or len(values) % rows:
        return drop(values)
    return torch.vmap(drop, randomness="same")(values.unflatten(0, (rows, -1))).flatten(0, 1)


@contextmanager
def random_layers(model: nn.Module, forward: Forward, inputs: Tensor) -> Generator[bool]:
    """Within, whatever is random in training in another way than by a dropout function is in training mode.

    Stochastic depth, noise, and attention that asks its own mode for its rate of dropout: layers that are not torch's,
    each tried by itself on `inputs`. One that changes a buffer or gives something else than logits stays as it is: it
    is no matter of dropout alone. Yields whether there are any.
    """
    own = [layer for layer in model.modules() if not type(layer).__module__.startswith("torch.")]
    with evaluation.modes_restored(model):
        found: list[nn.Module] = []
        # all at once first: most networks have none
        if own and _noisy(model, own, forward, inputs, None):
            expected = forward(0, inputs.clone()).shape
            found = [layer for layer in own if _noisy(model, [layer], forward, inputs, expected)]
        for layer in found:
            layer.training = True
        yield bool(found)


def _noisy(
    model: nn.Module, layers: Sequence[nn.Module], forward: Forward, inputs: Tensor, expected: torch.Size | None
) -> bool:
    """Whether a pass with `layers` in training mode, and dropout functions off, is random; and as it should be.

    A pass that fails is no answer: with `expected` None, where all are on at once, it counts as random.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    before = random_state(inputs.device)
    for layer in layers:
        layer.training = True
    try:
        outputs = plain(forward, inputs, 0, _without_dropout)
        shape = outputs.shape if isinstance(outputs, Tensor) else None  # pyright: ignore[reportUnnecessaryIsInstance]  # auxiliary outputs of training
    except Exception:  # whatever a network does in training only
        shape = None
    finally:
        for layer in layers:
            layer.training = False
        changed = [(buffer, old) for buffer, old in buffers if not torch.equal(buffer, old)]
        for buffer, old in changed:  # the others are not written to: a graph may hold them
            buffer.copy_(old)
    noisy = not torch.equal(random_state(inputs.device), before)
    return noisy or shape is None if expected is None else noisy and not changed and shape == expected


def _without_dropout(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    off = dropping(func, args, kwargs, on=False)
    return func(*args, **kwargs) if off is None else off()
