"""Several processes that train one network, as torchrun starts them: each takes a part of every batch.

Gradients are summed over the processes, weighted by the samples of each, so that a step is that of one process on the
whole batch. torch's own process group does all that is needed; no wrapper is put around the network, whose objective
may call it as often as it likes.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # the only common base

from caveat.batches import Inputs
from caveat.errors import CaveatError, DataError, OptionError
from caveat.precision import wide

__all__ = [
    "alike", "by_first", "check_alike", "count", "drawing", "first", "joined", "launched", "part", "rank", "summed",
    "synchronised", "together",
]  # fmt: skip

T = TypeVar("T")
_joined: list[bool] = []
"""Not empty within `joined`: a process group of a caller who trains something else is none of ours."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def count() -> int:
    """Number of processes that train together; 1 outside of `joined`."""
    return distributed.get_world_size() if _on() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _on() else 0


def first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def _on() -> bool:
    return bool(_joined)


@contextmanager
def joined(device: torch.device) -> Generator[torch.device]:
    """Within, this process trains with the others that torchrun started; gives the device of its own.

    By NCCL on CUDA, by gloo elsewhere; or by the process group that there is. Alone, nothing happens.

    Raises
    ------
    OptionError
        If there are more processes on this machine than GPUs.
    """
    own = not distributed.is_available() or not distributed.is_initialized()
    if own and not launched():
        yield device
        return
    place = distributed.get_node_local_rank(0)  # pyright: ignore[reportPrivateImportUsage]  # it is documented
    if device.type == "cuda":
        if place >= torch.cuda.device_count():
            raise OptionError(
                f"device: torchrun started more processes than there are GPUs ({torch.cuda.device_count()}); start as "
                "many, or take --device cpu"
            )
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    if own:
        # torch's optimizers import this module, whose functions keep the group of that moment as a default: its threads
        # would outlive `destroy_process_group`, and one that wakes while Python shuts down aborts the process
        import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _joined.append(True)
    try:
        yield device
    finally:
        _joined.pop()
        if own:
            distributed.destroy_process_group()


def by_first(function: Callable[[], T]) -> T:
    """What the first process's call gives, in every process; what it refuses, all refuse. All wait for it."""
    if count() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if first():
        try:
            outcome[0] = function()
        except CaveatError as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def check_alike(value: int) -> None:
    """Refuse to train on, if the processes are not at the same batch.

    Raises
    ------
    DataError
        If `value` is not the same in all.
    """
    if count() > 1:
        found: list[Any] = [None] * count()
        distributed.all_gather_object(found, value)
        if len(set(found)) > 1:
            raise DataError(
                "batches: the processes see different batches; expected the same in all, as each takes its part by "
                "itself: leave out the DistributedSampler, and shuffle by a generator of the same seed"
            )


def alike(model: nn.Module) -> None:
    """Give every process the weights and buffers of the first."""
    if count() > 1:
        with torch.no_grad():
            for tensor in chain(model.parameters(), model.buffers()):
                distributed.broadcast(tensor, 0)


def part(inputs: Inputs, labels: Tensor) -> tuple[Inputs, Tensor, float]:
    """This process's part of a batch, and how much of it that is.

    Of a batch of fewer samples than processes every one takes the whole.
    """
    every = count()
    if every == 1 or len(labels) < every:
        return inputs, labels, 1 / every
    rows = slice(rank(), None, every)
    own = labels[rows]
    return inputs[rows], own, len(own) / len(labels)


def together(model: nn.Module) -> None:
    """Replace every gradient by the sum over the processes."""
    if count() == 1:
        return
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    flat = torch.cat([wide(_gradient(weight)).flatten() for weight in weights])
    distributed.all_reduce(flat)
    for weight, gradient in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = gradient.view_as(weight).to(weight.dtype)


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


@contextmanager
def drawing(generator: torch.Generator) -> Generator[torch.Generator]:
    """What an objective draws from: in each of several processes a generator of its own.

    Processes draw for parts of different length, and would no longer agree on the order of the batches. Where nothing
    is drawn, `generator` stays as it is, as in one process.
    """
    if count() == 1:
        yield generator
        return
    before = generator.get_state()
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    own = torch.Generator(generator.device).manual_seed(seed + rank())
    start = own.get_state()
    yield own
    if torch.equal(start, own.get_state()):
        generator.set_state(before)


def summed(values: Float[Tensor, " k"]) -> list[float]:
    """The sum over the processes of each number."""
    if count() > 1:
        distributed.all_reduce(values)
    return values.tolist()


@contextmanager
def synchronised(model: nn.Module) -> Generator[None]:
    """Within, batch normalisation in training mode takes its statistics from the whole batch, over all processes."""
    with ExitStack() as stack:
        if count() > 1:
            for layer in model.modules():
                if isinstance(layer, _BatchNorm):
                    stack.enter_context(_replaced(layer, partial(_normalised, layer, layer.forward)))
        yield


@contextmanager
def _replaced(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Generator[None]:
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


class _Sum(torch.autograd.Function):
    """The sum over the processes, through which gradients go: each process's loss depends on the inputs of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx  # nothing is needed again
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _normalised(layer: _BatchNorm, own: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """What torch's batch normalisation gives of the rows of all processes, for those of this one."""
    if not layer.training:
        return own(inputs)
    axes, shape = [axis for axis in range(inputs.ndim) if axis != 1], [1, -1] + [1] * (inputs.ndim - 2)
    rows = wide(inputs)
    total, number = _Sum.apply(rows.sum(axes)), _Sum.apply(rows.new_full((1,), rows.numel() / rows.shape[1]))
    centred = rows - (total / number).view(shape)
    variance = _Sum.apply((centred**2).sum(axes)) / number
    _remember(layer, total / number, variance * number / (number - 1))
    normalised = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        normalised = normalised * layer.weight.view(shape) + layer.bias.view(shape)
    return normalised.to(inputs.dtype)


@torch.no_grad()
def _remember(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics after one more batch, as torch counts them."""
    own = dict(layer.named_buffers(recurse=False))
    if own:
        own["num_batches_tracked"] += 1
        weight = 1 / own["num_batches_tracked"] if layer.momentum is None else layer.momentum
        for name, value in (("running_mean", mean), ("running_var", variance)):
            own[name].lerp_(value.to(own[name].dtype), weight)
