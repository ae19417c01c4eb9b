"""How `caveat train` and `caveat demo` train: optimizer, schedule, objective, what is tracked and logged."""

import ast
import csv
import inspect
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

    from caveat.data import Bound, Encoded
    from caveat.data.source import Source
    from caveat.inputs import Opened
    from caveat.objectives import Objective
    from caveat.training import History

__all__ = [
    "begin",
    "check",
    "check_kind",
    "check_network",
    "form",
    "logged",
    "made_outliers",
    "objective",
    "save_weights",
    "train",
]

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
    known = objectives.OBJECTIVES | objectives.FOR_RECONSTRUCTION | objectives.FOR_REGRESSION
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
    fields = list(getattr(found, "__dataclass_fields__", ())) or _keywords(found)
    for option in options:
        known_name(f"--objective: {name}", option, fields) if fields else _no_options(name, option)
    # a dataclass, or a function with keywords
    return replace(found, **options) if is_dataclass(found) else partial(found, **options)  # pyright: ignore[reportReturnType, reportArgumentType, reportUnknownVariableType]


def form(goal: "Objective") -> tuple[str, tuple[float, ...]] | None:
    """What the outputs mean of a network trained by this objective, and the levels of quantiles; None for classes."""
    from caveat.objectives import FOR_REGRESSION, FORMS
    from caveat.scores.distribution import LEVELS

    given = goal.keywords if isinstance(goal, partial) else {}
    plain: Any = goal.func if isinstance(goal, partial) else goal
    found = next((name for name, one in FOR_REGRESSION.items() if one is plain), None)
    return None if found is None else (FORMS[found], tuple(given.get("levels", LEVELS)))


def _keywords(function: "Callable[..., Any]") -> list[str]:
    """Names of a function's options."""
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]


def made_outliers(goal: "Objective") -> str | None:
    """The recipe by which an objective makes the outliers it is trained on; None if it has none, or a set of them."""
    from caveat import data

    recipe = getattr(goal, "outliers", None)
    return next((name for name, made in data.outliers.FROM_IMAGES.items() if made is recipe), None)


def _no_options(name: str, option: str) -> None:
    raise OptionError(f"--objective: {name} has no options, got {option!r}")


def train(  # what varies independently is a separate argument
    network: "nn.Module",
    training: "Bound",
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
    from caveat.data.tabular import Rows
    from caveat.objectives import cross_entropy
    from caveat.training import History, fit

    goal = cross_entropy if goal is None else goal
    batches: data.Shuffled | data.Reordered | Rows
    if isinstance(training, data.Encoded):
        batches = data.reordered(training, batch=batch, generator=generator)
    elif isinstance(training, data.Numbers):
        batches = Rows(training.inputs, targets(training, network, goal), batch, generator)
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
    phases = _phases(goal, epochs, warm, checkpoint)
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
    _check_end(history, 2 if form(goal) else int(training.labels.max()) + 1, rate)
    return history, {name: tracker.posterior() for name, tracker in trackers.items()}


def begin(network: "nn.Module", goal: "Objective | None", generator: "torch.Generator") -> int:
    """What the objective does with a network that is not trained yet; the number of layers whose weights it drew."""
    drawn: Callable[..., int] | None = getattr(goal, "begin", None)
    return 0 if drawn is None else drawn(network, generator)


def _phases(
    goal: "Objective", epochs: int, warm: int, checkpoint: Path | None
) -> "list[tuple[Objective, int, Path | None]]":
    """Objectives one after the other, their epochs, and where each keeps its checkpoint: the last in the run's own."""
    if warm:
        early = checkpoint and checkpoint.with_name(f"warm-{checkpoint.name}")
        return [(replace(goal, weight=WARM), warm, early), (goal, epochs - warm, checkpoint)]  # pyright: ignore[reportArgumentType]  # has a weight
    steps: Any = getattr(goal, "phases", None)
    if steps is None:
        return [(goal, epochs, checkpoint)]
    *rising, (last, count) = steps(epochs)
    places = [checkpoint and checkpoint.with_name(f"phase{k}-{checkpoint.name}") for k in range(1, len(rising) + 1)]
    return [*((aim, part, place) for (aim, part), place in zip(rising, places, strict=True)), (last, count, checkpoint)]


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


def targets(training: "Bound", network: "nn.Module", goal: "Objective") -> "torch.Tensor":
    """The labels as an objective is given them: classes as they are, numbers as far as the network standardises."""
    from caveat.models.standardized import label_units

    if form(goal) is None:
        return training.labels
    centre, scale = label_units(network)
    return ((training.labels.double() - centre) / scale).float()


def check_network(
    network: "nn.Module", training: "Bound", test: "Bound | None" = None, *, goal: "Objective | None" = None
) -> None:
    """Run the network on a few samples: what does not fit must not be found out after an epoch, or never.

    Raises
    ------
    DataError, ModelError, OptionError
        If the network fails on the inputs, has fewer outputs than labels or more than class names, the objective is
        for other labels, or if the sets' classes or shapes differ.
    """
    from caveat.batches import Several
    from caveat.inputs import check_same_classes, check_same_units, opened

    target = "number" if goal is not None and form(goal) else "class"
    _check_target(training, target)
    one = opened(training, "data", target=target)
    few = one.first[0][:8]
    if isinstance(few, Several):
        raise DataError(
            f"data: the network's inputs have several parts {few.shape[1:]}, training needs one tensor: put them into "
            "one in its encode(texts), and take them apart in its forward"
        )
    _check_few(network, training, one, goal)
    if test is None:
        return
    other = opened(test, "test", target=target)
    check_same_classes(other, one)
    check_same_units(other, one)
    if other.shape != one.shape:
        raise DataError(f"test: expected inputs of shape {one.shape} as in the training data, got {other.shape}")


def _check_few(network: "nn.Module", training: "Bound", one: "Opened", goal: "Objective | None") -> None:
    """Run the network, or the objective of regression, on a few samples."""
    import torch

    from caveat import evaluation
    from caveat.inputs import check_labels, class_names, moved
    from caveat.observations import run

    few: Any = one.first[0][:8]
    with evaluation.in_eval_mode(network), evaluation.without_gradients():
        if goal is not None and form(goal):
            try:
                goal(network, moved(few, network), targets(training, network, goal)[:8], torch.Generator())
            except (RuntimeError, TypeError) as error:
                raise DataError(f"data: the model fails on inputs of shape {tuple(few.shape)}: {error}") from error
            return
        logits = run(network, moved(few, network), "data")
    check_labels(training.labels, logits, "data")
    class_names(one, logits.shape[1])


def _check_target(training: "Bound", target: str) -> None:
    from caveat.objectives import FOR_REGRESSION

    real = training.labels.is_floating_point()
    if target == "class" and real:
        raise OptionError(
            f"--objective: it is for classes, but the labels of {training.name} are real numbers; take one of "
            f"{', '.join(FOR_REGRESSION)}"
        )
    if target == "number" and (training.classes is not None or bool((training.labels == -1).all())):
        what = "none" if training.classes is None else f"classes ({', '.join(training.classes[:3])}, ...)"
        raise OptionError(
            f"--objective: it is for real labels, but those of {training.name} are {what}; of a table, name their "
            "column with +label=COLUMN"
        )


def check_kind(network: "nn.Module", training: "Bound", goal: "Objective", *, augment: "Sequence[str]") -> None:
    """Refuse for texts what changes its inputs, for texts and tables what changes pictures, and layers without bounds.

    Raises
    ------
    OptionError
        If the inputs are augmented, or the objective fails on two texts.
    ModelError
        If the objective is one of certified training, and the network has a layer that no bound is known for.
    """
    import torch

    from caveat import evaluation
    from caveat.data import Encoded, Numbers
    from caveat.inputs import moved
    from caveat.objectives import CrownIbp, Good, Ibp

    if augment and isinstance(training, Encoded | Numbers):
        what = "texts" if isinstance(training, Encoded) else "numbers"
        raise OptionError(f"--augment: {augment[0]} changes pictures, {training.name} holds {what}; leave it out")
    if isinstance(training, Encoded):
        _check_text(network, training, goal)
    elif isinstance(goal, CrownIbp | Good | Ibp):
        inputs, labels = training.take(torch.arange(min(2, len(training))))
        with evaluation.in_eval_mode(network), torch.no_grad():
            goal(network, moved(inputs, network), labels, torch.Generator().manual_seed(0))  # pyright: ignore[reportArgumentType]


def _check_text(network: "nn.Module", training: "Encoded", goal: "Objective") -> None:
    """Refuse what changes its inputs, as pictures can be changed, for texts: tokens are whole numbers.

    Raises
    ------
    OptionError
        If the objective fails on two of them.
    """
    import torch

    from caveat import evaluation, objectives
    from caveat.inputs import moved

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
