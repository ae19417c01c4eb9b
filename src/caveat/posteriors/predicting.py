"""The only place that loops over draws: from a posterior and inputs to the logits of its samples."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat import evaluation
from caveat.batches import Inputs
from caveat.calls import tensor, with_weights
from caveat.errors import ModelError, OptionError
from caveat.posteriors import renew
from caveat.posteriors.dropout import Dropout
from caveat.posteriors.ensemble import Ensemble, stack
from caveat.posteriors.layers import check_names, fitting, needs_renewal
from caveat.posteriors.masks import dropping, first_axis, random_layers, scale_and_shift
from caveat.posteriors.shared import Act, Forward, Touches, plain, runs, shareable

__all__ = ["Masks", "Posterior", "drop_after", "fixed_masks", "holds", "predict", "sample"]

Masks: TypeAlias = list[tuple[Tensor, ...]]
"""For every call that drops entries out, factors and summands of all draws."""
CHUNK = 64
"""Inputs that go through all draws together. Larger ones spend their time on memory (measured, docs/posteriors.md)."""


@runtime_checkable
class Posterior(Protocol):
    """A distribution over weights of one architecture."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The weights of one network; what is not among them is the model's own."""
        ...


def sample(
    posterior: Posterior,
    model: nn.Module,
    *,
    draws: int,
    generator: torch.Generator,
    batches: Iterable[tuple[Inputs, Tensor]] | None = None,
) -> Ensemble:
    """Draw networks once, to be run on any number of inputs.

    Parameters
    ----------
    draws
        Number of networks, at least 1.
    batches
        Training data, gone through once a draw to renew batch-norm statistics: needed if a batch norm comes after a
        drawn weight, since its statistics belong to other weights.

    Raises
    ------
    OptionError
        If `draws` is not positive, the posterior is of another network, or `batches` is needed and missing.
    """
    if draws < 1:
        raise OptionError(f"draws: expected at least 1, got {draws}")
    members: list[dict[str, Tensor]] = []
    for _ in range(draws):
        weights = fitting(model, posterior.draw(generator))
        check_names(model, weights)
        if batches is not None:
            weights = weights | renew.statistics(model, weights, batches)
        elif not isinstance(posterior, Ensemble) and needs_renewal(model, set(weights)):
            raise OptionError(
                "batches: the model has batch norm, whose statistics are wrong for drawn weights: pass training data"
            )
        members.append(weights)
    return stack(members)


def predict(
    posterior: Posterior | Dropout,
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    *,
    generator: torch.Generator,
    draws: int | None = None,
) -> Float[Tensor, "s n ..."]:
    """The outputs of posterior samples for the same inputs, in evaluation mode; no gradients.

    An ensemble's members answer in their order: the first `draws`, all by default. Of other posteriors 20 networks are
    drawn by default; to use the same ones again, or to renew batch-norm statistics, `sample` them first. What all
    draws have in common (the part before the first dropout or drawn weight) runs once for every 64 inputs. A draw of
    dropout is one network: the same masks for every input, so that no answer depends on the batch. Where masks cannot
    be told apart by input (attention and recurrent layers of torch, stochastic depth, noise), inputs go through one by
    one, which is slow.

    Parameters
    ----------
    generator
        Source of masks and draws; an ensemble draws nothing.
    draws
        Number of networks.

    Raises
    ------
    OptionError
        If `draws` is out of range, or the posterior belongs to another network.
    ModelError
        If the model is in training mode, or nothing in it is dropped out (for `Dropout`).
    """
    evaluation.check(model)
    if isinstance(posterior, Dropout):
        return _with_masks(posterior, model, inputs, generator, 20 if draws is None else draws)
    if not isinstance(posterior, Ensemble):
        posterior = sample(posterior, model, draws=20 if draws is None else draws, generator=generator)
    elif draws is not None:
        posterior = posterior.first(draws)
    check_names(model, posterior.weights, stacked=True)
    members = [posterior.member(index) for index in range(len(posterior))]
    drawn = {id(weight) for member in members for weight in member.values()}

    def forward(draw: int, chunk: Tensor) -> Tensor:
        return tensor(with_weights(model, members[draw], chunk))

    def touches(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        return holds(args, drawn) or holds(tuple(kwargs.values()), drawn)

    return _chunks(forward, inputs, len(members), touches, _call, lambda: None)


def _with_masks(posterior: Dropout, model: nn.Module, inputs: Tensor, generator: torch.Generator, draws: int) -> Tensor:
    if draws < 1:
        raise OptionError(f"draws: expected at least 1, got {draws}")
    rows, dropped = 1, list[int | None]()

    def touches(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        return dropping(func, args, kwargs) is not None

    def act(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        on = dropping(func, args, kwargs, rows=rows)
        if on is None:
            return func(*args, **kwargs)
        dropped.append(first_axis(func, args, kwargs))
        return on()

    def forward(_: int, chunk: Tensor) -> Tensor:
        nonlocal rows
        rows = len(chunk)
        return tensor(model(chunk))

    def by_input(some: Tensor) -> bool:
        """Whether all that is dropped out has the inputs along its first axis: twice as long for two as for one."""
        lengths: list[list[int | None]] = []
        outputs: list[Tensor] = []
        for chunk in (some[:1], some):
            dropped.clear()
            restart()
            outputs.append(plain(forward, chunk, 0, act)[:1])
            lengths.append(list(dropped))
        longer = [None if length is None else len(some) * length for length in lengths[0]]
        return None not in longer and longer == lengths[1] and torch.allclose(*outputs, rtol=0.01, atol=0.01)

    devices = [inputs.device] if inputs.device.type == "cuda" else []
    restart = _restart(generator, devices)
    with evaluation.unchanged(model), torch.random.fork_rng(devices=devices):
        drop_after(model, posterior)
        restart()
        with evaluation.without_gradients(), random_layers(model, forward, inputs[:2]) as others:
            together = not others and by_input(inputs[:2])
            outputs = _chunks(forward, inputs, draws, touches, act, restart, size=CHUNK if together else 1)
    if not dropped and not others:
        raise ModelError(
            "model: nothing in it is random in training: it has no dropout of a rate above 0; train it with one, "
            "take another posterior, or (in Python) name layers in posteriors.dropout.of(model, after=...)"
        )
    return outputs


def fixed_masks(
    posterior: Dropout, model: nn.Module, inputs: Tensor, *, generator: torch.Generator, draws: int
) -> Masks:
    """The masks that `predict` drops out with, the same for every input: for each call scale and shift of all draws
    `(s, ...)`, of which a draw gives values * scale + shift.

    Raises
    ------
    ModelError
        If something is random in another way, so that it has no masks.
    """
    inputs, found = inputs[:1], list[list[tuple[Tensor, Tensor] | None]]()

    def act(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        on = dropping(func, args, kwargs)
        if on is None:
            return func(*args, **kwargs)
        result, masks = scale_and_shift(func, args, kwargs, on)
        found[-1].append(masks)
        return result

    def forward(_: int, chunk: Tensor) -> Tensor:
        return tensor(model(chunk))

    restart = _restart(generator, [])
    with evaluation.unchanged(model), torch.random.fork_rng(devices=[]), evaluation.without_gradients():
        drop_after(model, posterior)
        restart()
        with random_layers(model, forward, inputs) as others:
            restart()
            for draw in range(draws):
                found.append([])
                plain(forward, inputs, draw, act)
    if others or any(masks is None for call in found for masks in call):
        raise ModelError(
            "model: something in it is random in another way than by dropping entries of a tensor (attention, "
            "recurrent layers, stochastic depth), which has no masks that could be fixed: export an ensemble, or one "
            "network"
        )
    calls = zip(*found, strict=True)
    return [
        tuple(torch.stack(parts) for parts in zip(*(masks for masks in call if masks is not None), strict=True))
        for call in calls
    ]


def _chunks(
    forward: Forward,
    inputs: Tensor,
    draws: int,
    touches: Touches,
    act: Act,
    restart: Callable[[], None],
    *,
    size: int = CHUNK,
) -> Tensor:
    """All draws over chunks of the inputs; each chunk begins with the same random numbers."""
    parts: list[Tensor] = []
    with evaluation.without_gradients():
        # a second look at two inputs decides whether sharing is right for this network; not worth it for a few inputs
        share = draws > 1 and len(inputs) * (draws - 1) > 16 and shareable(forward, inputs[:2], touches, act, restart)
        for chunk in inputs.split(size):
            restart()
            outputs = _shared(forward, chunk, draws, touches, act) if share else None
            if outputs is None:
                restart()
                outputs = [plain(forward, chunk, draw, act) for draw in range(draws)]
            parts.append(torch.stack(outputs))
    return torch.cat(parts, dim=1)


def _shared(forward: Forward, chunk: Tensor, draws: int, touches: Touches, act: Act) -> list[Tensor] | None:
    """All draws of one chunk, what they have in common once; None if the network makes other calls on these inputs."""
    try:
        return runs(forward, chunk, range(draws), touches, act)
    except Exception:  # the plain run says what is wrong, if anything is
        return None


def _call(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return func(*args, **kwargs)


def holds(values: Sequence[Any], drawn: set[int]) -> bool:
    """Whether one of the tensors with these `id`s is among the arguments of a call."""
    return any(id(v) in drawn or (isinstance(v, list | tuple) and holds(v, drawn)) for v in values)


def drop_after(model: nn.Module, posterior: Dropout) -> None:
    """Let the model drop out after the layers that the posterior names, until its hooks are taken away."""
    for name in posterior.after:
        model.get_submodule(name).register_forward_hook(partial(_drop, posterior.rate))


def _drop(rate: float, _: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return functional.dropout(output, rate)


def _restart(generator: torch.Generator, devices: Sequence[torch.device]) -> Callable[[], None]:
    """What begins the random numbers of all draws anew."""
    return partial(_seed, int(torch.randint(2**62, (), generator=generator, device=generator.device)), devices)


def _seed(seed: int, devices: Sequence[torch.device]) -> None:
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    for device in devices:
        torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
