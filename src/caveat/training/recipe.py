"""How `caveat train` and `caveat demo` train: optimizer, schedule, objective, what is tracked and logged."""

import ast
import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.errors import CaveatError, DataError, OptionError, known_name
from caveat.files import write_atomically

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caveat.data.source import Source
    from caveat.data.texts import Encoded
    from caveat.objectives import Objective
    from caveat.training import History

__all__ = ["check", "check_network", "logged", "made_outliers", "objective", "save_weights", "train"]

FORGETS = 316
"""Steps over which TRADI's mean forgets by a factor e: sqrt(10 / 1e-4), from its noises."""
DIVERGED = 1e6
"""A loss that no objective has at any network worth keeping, whatever its weights."""
WARM = 0.001
"""Weight of an objective's second term while it warms up."""


def objective(text: str, *, outliers: "Source | None" = None) -> "Objective":
    """The objective that `NAME` or `NAME(option=value, ...)` means; outliers by the name of a recipe, or from a set.

    Raises
    ------
    OptionError
        If the name or an option does not exist, a value is out of range, or `outliers` are given and of no use.
    """
    from caveat import data, objectives

    name, options = named_call(text, "--objective")
    known = objectives.OBJECTIVES | objectives.FOR_RECONSTRUCTION
    known_name("--objective", name, known)
    found = known[name]
    if isinstance(recipe := options.get("outliers"), str):
        known_name("--objective: outliers", recipe, data.outliers.FROM_IMAGES)
        options["outliers"] = data.outliers.FROM_IMAGES[recipe]
    if outliers is not None:
        import torch

        options["outliers"] = data.outliers.taken_from(torch.cat([inputs for inputs, _ in outliers]))
    if not options:
        return found
    fields = found.__dataclass_fields__ if is_dataclass(found) else {}
    for option in options:
        known_name(f"--objective: {name}", option, fields) if fields else _no_options(name, option)
    return replace(found, **options)  # pyright: ignore[reportArgumentType]  # a dataclass, as just checked


def made_outliers(goal: "Objective") -> str | None:
    """The recipe by which an objective makes the outliers it is trained on; None if it has none, or a set of them."""
    from caveat import data

    recipe = getattr(goal, "outliers", None)
    return next((name for name, made in data.outliers.FROM_IMAGES.items() if made is recipe), None)


def _no_options(name: str, option: str) -> None:
    raise OptionError(f"--objective: {name} has no options, got {option!r}")


def train(  # what varies independently is a separate argument
    network: "nn.Module",
    training: "Source | Encoded",
    *,
    epochs: int,
    rate: float,
    batch: int,
    generator: "torch.Generator",
    optimizer: str = "adam",
    decay: float = 0.0,
    augment: "Sequence[str]" = (),
    checkpoint: Path | None = None,
    track: "Sequence[str]" = (),
    goal: "Objective | None" = None,
    warm: int = 0,
    log: "Callable[[History], None] | None" = None,
    dtype: str = "float32",
) -> "tuple[History, dict[str, Any]]":
    """Minimise an objective (cross-entropy) with one cycle of the learning rate; the bar is on standard error.

    In the first `warm` epochs the objective's `weight` is 0.001: noise at full weight can keep a network from learning.
    Gives the history, and per name of `track` the posterior that was tracked: SWAG and snapshots with 20 copies over
    the last quarter of the run, TRADI from the second epoch on (in a run that is too short for its filters to forget
    where they began, over the last quarter too).

    Raises
    ------
    CaveatError
        If the loss is not finite, or training diverged: then there is no network worth an audit.
    """
    import torch

    from caveat import data, posteriors
    from caveat.objectives import cross_entropy
    from caveat.training import History, fit

    goal = cross_entropy if goal is None else goal
    batches: data.Shuffled | data.Reordered
    if isinstance(training, data.Encoded):
        batches = data.reordered(training, batch=batch, generator=generator)
    else:
        batches = data.shuffled(training, batch=batch, generator=generator, augment=data.augment.joined(augment))
    if optimizer == "adam":
        steps = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    else:
        steps = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)
    total = max(1, epochs * len(batches))
    check(optimizer, warm=warm, epochs=epochs, goal=goal, track=track, steps=total)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if track:  # weights that no longer move have no spread to track: the last quarter goes on at a tenth of the rate
        schedule = torch.optim.lr_scheduler.LambdaLR(steps, partial(_falling, total=total))
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(steps, max_lr=rate, total_steps=total, cycle_momentum=False)
    last, every = _last_part(total)
    makers = {
        "tradi": lambda: posteriors.tradi.start(network, steps, burn_in=_tracked_from(len(batches), total)),
        "swag": lambda: posteriors.swag.start(network, burn_in=last, every=every),
        "snapshots": lambda: posteriors.snapshots.start(network, burn_in=last, every=every),
    }
    trackers = {name: makers[name]() for name in track}
    phases = [(goal, epochs, checkpoint)]
    if warm:
        early = checkpoint and checkpoint.with_name(f"warm-{checkpoint.name}")
        phases = [(replace(goal, weight=WARM), warm, early), (goal, epochs - warm, checkpoint)]  # pyright: ignore[reportArgumentType]  # has a weight
    history = History()
    for aim, count, place in phases:

        def told(now: "History", before: "History" = history) -> None:
            if log:
                log(before.followed_by(now))

        made = fit(
            network, batches, aim, optimizer=steps, schedule=schedule, epochs=count, generator=generator,
            checkpoint=place, trackers=list(trackers.values()), log=told, dtype=dtype,
            checkpoint_every=None if place is None else 200,
        )  # fmt: skip
        history = history.followed_by(made)
    _check_end(history, int(training.labels.max()) + 1, rate)
    return history, {name: tracker.posterior() for name, tracker in trackers.items()}


def _check_end(history: "History", classes: int, rate: float) -> None:
    """Refuse a network that is no better than chance at a loss far above that of chance, log(classes)."""
    loss, accuracy = history.loss[-1], history.accuracy[-1]
    no_better = accuracy is not None and accuracy < 1.25 / classes and loss > 10 * math.log(max(2, classes))
    if no_better or loss > DIVERGED:
        seen = "" if accuracy is None else f" and the accuracy {accuracy:.1%}"
        raise CaveatError(
            f"training diverged: in its last epoch the loss is {loss:.3g}{seen}; train with a lower --rate (this run "
            f"had {rate:g}) in another folder (-o), and look at the inputs: are they in [0, 1]?"
        )


def _last_part(steps: int) -> tuple[int, int]:
    """The step after which copies of the weights are taken, and how many steps apart: 20 in the last quarter."""
    return 3 * steps // 4, max(1, steps // 80)


def check_network(network: "nn.Module", training: "Source | Encoded", test: "Source | Encoded | None" = None) -> None:
    """Run the network on a few samples: what does not fit must not be found out after an epoch, or never.

    Raises
    ------
    DataError, ModelError
        If the network fails on the inputs, has fewer outputs than labels or more than class names, or if the sets'
        classes or shapes differ.
    """
    from caveat import evaluation
    from caveat.batches import Several
    from caveat.inputs import check_labels, check_same_classes, check_same_units, class_names, moved, opened
    from caveat.observations import run

    one = opened(training, "data")
    few = one.first[0][:8]
    if isinstance(few, Several):
        raise DataError(
            f"data: the network's inputs have several parts {few.shape[1:]}, training needs one tensor: put them into "
            "one in its encode(texts), and take them apart in its forward"
        )
    with evaluation.in_eval_mode(network), evaluation.without_gradients():
        logits = run(network, moved(few, network), "data")
    check_labels(training.labels, logits, "data")
    class_names(one, logits.shape[1])
    if test is None:
        return
    other = opened(test, "test")
    check_same_classes(other, one)
    check_same_units(other, one)
    if other.shape != one.shape:
        raise DataError(f"test: expected inputs of shape {one.shape} as in the training data, got {other.shape}")


def check_text(network: "nn.Module", training: "Encoded", goal: "Objective", *, augment: "Sequence[str]") -> None:
    """Refuse what changes its inputs, as pictures can be changed, for texts: tokens are whole numbers.

    Raises
    ------
    OptionError
        If the inputs are augmented, or the objective fails on two of them.
    """
    import torch

    from caveat import evaluation, objectives
    from caveat.inputs import moved

    if augment:
        raise OptionError(f"--augment: {augment[0]} changes pictures, {training.name} holds texts; leave it out")
    inputs, labels = training.take(range(min(2, len(training))))
    try:
        with evaluation.in_eval_mode(network):
            goal(network, moved(inputs, network), labels, torch.Generator().manual_seed(0))  # pyright: ignore[reportArgumentType]  # the model's own
    except (RuntimeError, ValueError, TypeError) as error:
        name = next((name for name, one in objectives.OBJECTIVES.items() if type(one) is type(goal)), "it")
        raise OptionError(
            f"--objective: {name} changes its inputs or makes others, which can't be done to the tokens of texts; take "
            "one that leaves them as they are, such as cross_entropy, label_smoothing or focal"
        ) from error


def _tracked_from(epoch: int, total: int) -> int:
    """Steps before TRADI begins: its filter forgets its first weights over FORGETS steps, and those of a beginning
    training are far from the last ones: samples of a short run were right 11 % of the time."""
    return min(epoch, total - 1) if total - epoch >= 5 * FORGETS else _last_part(total)[0]


def check(
    optimizer: str,
    *,
    warm: int,
    epochs: int,
    goal: "Objective",
    track: "Sequence[str]",
    steps: int,
    dtype: str = "float32",
) -> None:
    """Refuse options that no training can have, before anything is read or written.

    Raises
    ------
    OptionError
        If there is no such optimizer or precision, there are no epochs, the warm-up does not fit the objective, or
        `steps` are too few for two copies of the weights in their last quarter.
    """
    from caveat.training.fit import check_dtype

    known_name("--optimizer", optimizer, ("adam", "sgd"))
    check_dtype(dtype)
    if epochs < 1:
        raise OptionError(f"--epochs: expected at least 1, got {epochs}")
    if warm and (not 0 < warm < epochs or not hasattr(goal, "weight")):
        raise OptionError("--warm-up: expected fewer epochs than all, and an objective with a weight")
    last, every = _last_part(steps)
    if {"swag", "snapshots"} & set(track) and (steps - last) // every < 2:
        raise OptionError(
            f"--track: {steps} training steps are too few: the last quarter gives fewer than 2 copies of the weights; "
            "train more epochs, or with a smaller --batch"
        )


def _falling(step: int, *, total: int) -> float:
    """Part of the rate: rises over a tenth of the run, falls to a tenth by three quarters of it, and stays there."""
    done = step / total
    if done < 0.1:
        return max(0.04, done / 0.1)
    fallen = min(1.0, (done - 0.1) / 0.65)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * fallen)) / 2


def logged(folder: Path) -> "Callable[[History], None]":
    """Write the history to `history.csv` after every epoch, and to TensorBoard where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        board: Any = SummaryWriter(str(folder / "tensorboard"))
    except ImportError:
        board = None

    def log(history: "History") -> None:
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["epoch", "loss", "accuracy", "seconds"])
        for epoch, row in enumerate(zip(history.loss, history.accuracy, history.seconds, strict=True), start=1):
            rows.writerow([epoch, *("" if value is None else f"{value:.6g}" for value in row)])
        write_atomically(folder / "history.csv", text.getvalue())
        if board is not None:
            for name in ("loss", "accuracy", "seconds"):
                if (value := getattr(history, name)[-1]) is not None:
                    board.add_scalar(name, value, len(history.loss))
            board.flush()

    return log


def save_weights(network: "nn.Module", path: Path) -> None:
    """Write all parameters and buffers as safetensors, whole or not at all."""
    from caveat.tensors import write_tensors

    write_tensors(path, network.state_dict())


def named_call(text: str, option: str) -> tuple[str, dict[str, Any]]:
    """Name and literal keyword arguments of `name` or `name(key=value)`.

    Raises
    ------
    OptionError
        If the text is neither; the message begins with `option`.
    """
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            names = [k.arg for k in node.keywords]
            if None not in names and len(set(names)) == len(names):  # no ** and none twice: one would be dropped
                return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError):
        pass
    raise OptionError(f"{option}: expected callable or callable(key=literal), got {text!r}")
