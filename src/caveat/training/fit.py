"""One training loop for every objective."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from caveat import devices, evaluation
from caveat.batches import Inputs
from caveat.errors import CaveatError, DataError, ModelError, OptionError
from caveat.inputs import fingerprints, moved
from caveat.objectives import Objective
from caveat.precision import wide
from caveat.training import checkpoint as checkpoints
from caveat.training import ranks
from caveat.training.history import History, Totals
from caveat.training.progress import Report, shown
from caveat.training.randomness import private_randomness, restore, snapshot

__all__ = ["ResumableTracker", "Tracker", "check_dtype", "fit"]


TRAINED_IN = ("float32", "bfloat16")
"""Precisions of the forward pass in training."""


@runtime_checkable
class Tracker(Protocol):
    """Watches training step by step."""

    def update(self, model: nn.Module) -> None:
        """Called after every step of the optimizer."""
        ...


@runtime_checkable
class ResumableTracker(Tracker, Protocol):
    """A tracker that can be part of a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """All of its state: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class _Run:
    """What does not change in the course of a training run."""

    model: nn.Module
    batches: Iterable[tuple[Inputs, Tensor]]
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler | None
    trackers: Sequence[Tracker]
    checkpoint: Path | None
    checkpoint_every: int | None
    generator: torch.Generator

    @property
    def generators(self) -> list[torch.Generator]:
        """The run's own, and that of the batches, if they have one."""
        other = getattr(self.batches, "generator", None)  # shuffled sets and torch's DataLoader keep it under this name
        return [self.generator, other] if isinstance(other, torch.Generator) else [self.generator]


def fit(  # noqa: PLR0913 -- one loop; all that varies in it is an argument
    model: nn.Module,
    batches: Iterable[tuple[Inputs, Tensor]],
    objective: Objective,
    *,
    optimizer: Optimizer,
    epochs: int,
    generator: torch.Generator,
    schedule: LRScheduler | None = None,
    trackers: Sequence[Tracker] = (),
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
    log: Callable[[History], None] | None = None,
    dtype: str = "float32",
) -> History:
    """Minimise `objective` over `batches`, which are gone through once an epoch; `model` is changed in place.

    All randomness comes from `generator` and that of the batches; dropout's too. The caller's random state and the
    model's modes are the same afterwards; gradients are None. Batches go to the model's device and floating type.

    In processes that torchrun started (within `ranks.joined`) each takes its part of every batch, which must be the
    same in all; gradients and the statistics of batch normalisation are those of the whole batch. So the weights are
    those that one process gives, where the objective is a mean over samples and draws nothing. The first process alone
    writes and shows progress.

    Parameters
    ----------
    optimizer
        Of torch, over parameters of `model`.
    schedule
        Of torch, stepped once after every step of the optimizer, not once an epoch.
    trackers
        Called after every step (SWAG, TRADI).
    checkpoint
        A file that is written after every epoch, and after every `checkpoint_every` steps if given. If it exists, the
        run goes on from there, and ends with the same numbers as if it had never been stopped. A finished run is only
        read back. Trackers must then have `state_dict` and `load_state_dict`.
    progress
        Show a bar, if standard error is a terminal.
    after_epoch
        Called with the epoch's number, from 1, and the model, once the checkpoint is written. Draws nothing.
    log
        Called with the history after every epoch, that of the epochs before an interruption included.
    dtype
        `bfloat16` runs the network under autocast; its outputs, the loss and the weights stay in single precision.

    Raises
    ------
    CaveatError
        If the loss is not a finite scalar; the message names the step. The weights are those before it.
    OptionError
        If `epochs` or `checkpoint_every` is not positive, the optimizer has no parameter of the model, a tracker
        cannot be part of the checkpoint, or the precision is another.
    DataError
        If there are no batches, or the checkpoint is broken or of another network.

    Example
    -------
    >>> from caveat.objectives import cross_entropy
    >>> generator, model = torch.Generator(), nn.Linear(1, 2)
    >>> batches = [(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]))]
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> fit(model, batches, cross_entropy, optimizer=optimizer, epochs=20, generator=generator).accuracy[-1]
    1.0
    """
    run = _Run(model, batches, objective, optimizer, schedule, trackers, checkpoint, checkpoint_every, generator)
    check_dtype(dtype)
    _check(run, epochs)
    ranks.alike(model)
    history = History()
    steps = len(batches) if hasattr(batches, "__len__") else None  # pyright: ignore[reportArgumentType] # just looked
    with (
        _left_tidy(model, optimizer),
        private_randomness(model, generator),
        devices.autocast(model, devices.DTYPES[dtype] if dtype != "float32" else None, widen=True),
        ranks.synchronised(model),
        shown(epochs, steps, wanted=progress and ranks.first()) as report,
    ):
        state = _resume(run) if checkpoint and checkpoint.exists() else None
        if state:
            history = History(**state["history"])
        for epoch in range(len(history.loss), epochs):
            history = _epoch(run, epoch, history, state, report)
            state = None
            if log:
                log(history)
            if after_epoch:
                after_epoch(epoch + 1, model)
    return history


def _epoch(run: _Run, epoch: int, history: History, resumed: dict[str, Any] | None, report: Report) -> History:
    """Go through the batches once; from the middle, if a checkpoint says so."""
    totals = Totals(**resumed["totals"]) if resumed else Totals()
    torch.set_rng_state(ranks.by_first(torch.get_rng_state))  # a DataLoader shuffles by it
    start = resumed["start"] if resumed else snapshot(run.model, run.generators)
    batches = iter(run.batches)
    if resumed:
        # The same order and the same augmentation again, up to where the run was stopped.
        restore(start, run.model, run.generators)
        if sum(1 for _ in islice(batches, totals.steps)) < totals.steps:
            raise DataError(f"checkpoint: it stopped after {totals.steps} steps, but batches gives fewer: other data?")
        restore(resumed["now"], run.model, run.generators)
    run.model.train()
    clock, begun = time.perf_counter(), totals.steps
    for inputs, labels in batches:
        if totals.steps == begun and ranks.count() > 1:
            ranks.check_alike(int(fingerprints(inputs).sum()))
        loss, correct = _step(run, inputs, labels, f"step {totals.steps + 1} of epoch {epoch + 1}")
        now = time.perf_counter()
        totals = totals.plus(loss=loss, samples=len(labels), correct=correct, seconds=now - clock)
        clock = now
        if run.checkpoint_every and totals.steps % run.checkpoint_every == 0:
            _save(run, history, totals, start)
        report(epoch, totals)
    if not totals.samples:
        raise DataError("batches: expected at least one batch an epoch, got none")
    history = history.after(totals)
    _save(run, history, Totals(), snapshot(run.model, run.generators))
    return history


def _step(run: _Run, inputs: Inputs, labels: Tensor, place: str) -> tuple[float, int | None]:
    """One step of the optimizer: the loss before it, and how many answers were right if that could be seen."""
    anchor = next(run.model.parameters())
    samples = len(labels)
    inputs, labels, share = ranks.part(inputs, labels)
    inputs = moved(inputs, run.model)
    labels = labels.to(anchor.device, anchor.dtype if labels.is_floating_point() else None, non_blocking=True)
    _forget_gradients(run.model, run.optimizer)
    with _answers(run.model, inputs) as answers, ranks.drawing(run.generator) as generator:
        try:
            loss = run.objective(run.model, inputs, labels, generator)  # pyright: ignore[reportArgumentType]  # the model's own
        except (TypeError, IndexError, AttributeError) as error:  # of a dict, a tuple, a single output
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"model: the objective fails on what it gives at {place} ({reason}): expected logits (n, c), a tensor "
                "with a column for every label; wrap a network that gives a dict or a tuple in a module whose "
                "forward returns the logits alone"
            ) from error
    if loss.ndim or not loss.requires_grad:
        raise CaveatError(f"objective: expected a scalar with a gradient at {place}, got shape {tuple(loss.shape)}")
    classes = labels.ndim == 1 and not labels.is_floating_point()  # real labels: regression, nothing to count
    seen = bool(answers) and answers[0].ndim == 2 and classes and len(answers[0]) == len(labels)
    right = (answers[0].argmax(1) == labels).sum() if seen else loss.new_zeros(())
    value, correct = ranks.summed(torch.stack([wide(loss.detach()), right * samples / len(labels)]) * share)
    if not abs(value) < float("inf"):
        raise CaveatError(f"objective: the loss is {value} at {place}: lower the learning rate, or look at the inputs")
    (loss * share).backward()
    ranks.together(run.model)
    run.optimizer.step()
    for tracker in run.trackers:
        tracker.update(run.model)  # before the schedule: they may ask for the rate that made this step
    if run.schedule:
        run.schedule.step()
    return value, round(correct) if seen else None


@contextmanager
def _answers(model: nn.Module, inputs: Inputs) -> Generator[list[Tensor]]:
    """What the model answers when it is asked about these very inputs, as a list that fills inside."""
    answers: list[Tensor] = []

    def look(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if not answers and arguments and arguments[0] is inputs and isinstance(output, Tensor):
            answers.append(output.detach())

    hook = model.register_forward_hook(look)
    try:
        yield answers
    finally:
        hook.remove()


@contextmanager
def _left_tidy(model: nn.Module, optimizer: Optimizer) -> Generator[None]:
    try:
        with evaluation.modes_restored(model):
            yield
    finally:
        _forget_gradients(model, optimizer)


def _forget_gradients(model: nn.Module, optimizer: Optimizer) -> None:
    model.zero_grad(set_to_none=True)  # also of what the optimizer does not train
    optimizer.zero_grad(set_to_none=True)


def _save(run: _Run, history: History, totals: Totals, start: dict[str, Any]) -> None:
    if run.checkpoint is None or not ranks.first():
        return
    state = {
        "model": dict(run.model.state_dict()),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict() if run.schedule else None,
        "trackers": [tracker.state_dict() for tracker in run.trackers if isinstance(tracker, ResumableTracker)],
        "history": dict(history.__dict__),
        "totals": totals.state(),
        "start": start,
        "now": snapshot(run.model, run.generators),
    }
    checkpoints.save(run.checkpoint, state)


def _resume(run: _Run) -> dict[str, Any]:
    """Put model, optimizer, schedule and trackers where the checkpoint has them."""
    path = run.checkpoint or Path()
    state = checkpoints.load(path)
    here, there = (
        {key: getattr(value, "shape", None) for key, value in entries.items()}
        for entries in (run.model.state_dict(), state["model"])
    )
    same_kind = (state["schedule"] is None) == (run.schedule is None)
    if here != there or not same_kind or len(state["trackers"]) != len(run.trackers):
        raise DataError(f"checkpoint: {path} is of another network, schedule or trackers: choose another file")
    try:
        run.optimizer.load_state_dict(state["optimizer"])
    except (ValueError, KeyError) as error:
        raise DataError(f"checkpoint: {path} is of another optimizer ({error}): choose another file") from None
    run.model.load_state_dict(state["model"])
    if run.schedule:
        run.schedule.load_state_dict(state["schedule"])
    for tracker, saved in zip(run.trackers, state["trackers"], strict=True):
        if isinstance(tracker, ResumableTracker):
            tracker.load_state_dict(saved)
    restore(state["now"], run.model, run.generators)
    return state


def check_dtype(dtype: str) -> None:
    """Refuse a precision that is not trained in.

    Raises
    ------
    OptionError
        If it is another than float32 and bfloat16.
    """
    if dtype not in TRAINED_IN:
        raise OptionError(
            f"dtype: expected {' or '.join(TRAINED_IN)} to train in, got {dtype!r}"
            + (": its gradients vanish below 6e-8; take bfloat16" if dtype == "float16" else "")
        )


def _check(run: _Run, epochs: int) -> None:
    every = run.checkpoint_every
    if epochs < 1:
        raise OptionError(f"epochs: expected at least 1, got {epochs}")
    if every is not None and (every < 1 or run.checkpoint is None):
        raise OptionError(f"checkpoint_every: expected at least 1, and a checkpoint to write, got {every}")
    own = set(run.model.parameters())
    if not any(parameter in own for group in run.optimizer.param_groups for parameter in group["params"]):
        raise OptionError("optimizer: none of its parameters belongs to the model: make it from model.parameters()")
    if run.checkpoint is not None:
        for tracker in run.trackers:
            if not isinstance(tracker, ResumableTracker):
                kind = type(tracker).__name__
                raise OptionError(f"trackers: {kind} has no state_dict and cannot be resumed: leave out checkpoint")
