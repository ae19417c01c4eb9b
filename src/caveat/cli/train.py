"""`caveat train`: a network from data, with a loop that can be interrupted."""

import io
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, cast

import typer

from caveat.cli.checks import existing, output_folder, positive
from caveat.cli.options import DEVICE, NORMALIZE, WEIGHTS_KEY, WORKERS
from caveat.cli.terminal import echo
from caveat.errors import CaveatError, DataError, ModelError, OptionError, known_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caveat.data import Bound, Set
    from caveat.data.source import Source
    from caveat.objectives import Objective
    from caveat.training import History

NAME = "train"
CERTIFIED = 200
"""Test pictures of which certified training says how many are verified."""
SETTINGS = (
    "model", "data", "epochs", "optimizer", "rate", "decay", "batch", "augment", "seed", "objective", "outliers",
    "warm_up", "weights_key", "normalize", "dtype",
)  # fmt: skip
"""Options of which another value is another training."""
OWN = ("report.html", "record.json")


def run(
    model: str = typer.Option(..., help="package.module:callable, for instance caveat.models:lenet"),
    data: str = typer.Option(..., metavar="DATA", help="Training data, for instance mnist:train (caveat list data)."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for weights, checkpoint and audit."),
    weights: Path | None = typer.Option(
        None,
        help="Start from these (fine-tuning): safetensors, or a file of torch.save (.pth, .pt, .ckpt, .bin, ...).",
    ),
    weights_key: str | None = WEIGHTS_KEY,
    normalize: str | None = NORMALIZE,
    epochs: int = typer.Option(5, min=1, help="Passes over the training data."),
    optimizer: str = typer.Option("adam", help="adam, or sgd (Nesterov momentum 0.9)."),
    rate: float = typer.Option(1e-3, help="Maximum learning rate, of a one-cycle schedule."),
    decay: float = typer.Option(0.0, help="Weight decay (L2 penalty)."),
    batch: int = typer.Option(128, min=1, help="Batch size."),
    augment: list[str] = typer.Option(
        [], help="crop (random, by up to 4 pixels) or flip (horizontal; not where it changes the class). Repeatable."
    ),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of initial weights, order and augmentation."),
    objective: str = typer.Option(
        "cross_entropy", help="The loss: a name of  caveat list objectives , with options as in acet(steps=10)."
    ),
    outliers: str | None = typer.Option(
        None, metavar="DATA", help="Auxiliary OOD data that the loss is trained on: for outlier_exposure."
    ),
    warm_up: int = typer.Option(
        0,
        min=0,
        help="Epochs at the start in which the second term of the loss (acet, trades, ...) weighs 0.001 only: at full "
        "weight some networks do not begin to learn.",
    ),
    test: str | None = typer.Option(
        None, metavar="DATA", help="Test data of the audit at the end; by default the test split of the training data."
    ),
    ood: list[str] = typer.Option([], metavar="NAME=DATA", help="OOD data of the audit at the end. Repeatable."),
    audit: bool = typer.Option(True, help="Audit the network at the end."),
    track: list[str] = typer.Option(
        [],
        help="Estimate a posterior over the weights during training: tradi, swag or snapshots. Repeatable; writes "
        "NAME.safetensors, for caveat audit --posterior.",
    ),
    members: int = typer.Option(
        1,
        min=1,
        help="Members of a deep ensemble, trained with different seeds; from 2 on writes ensemble.safetensors.",
    ),
    device: str = DEVICE,
    dtype: str = typer.Option(
        "float32", help="Precision of the forward pass: float32, or bfloat16 under autocast; weights stay in float32."
    ),
    workers: int = WORKERS,
) -> None:
    """Train a network, then audit it. Run it again after an interruption and it resumes where it was.

    Writes model.safetensors, checkpoint.safetensors, history.csv and, with an audit, audit/report.html. Started by
    torchrun, several processes train one network: torchrun --nproc-per-node 2 -m caveat train ...
    """
    options = locals()
    _check(rate=rate, decay=decay, optimizer=optimizer, track=track, augment=augment, weights=weights, output=output)
    import torch

    from caveat import data as sources
    from caveat import devices
    from caveat.cli import model as models
    from caveat.training import ranks, recipe, run_folder

    with ranks.joined(devices.choose(device)) as place, _one_voice():
        opened = sources.read(data, seed=seed, workers=workers)
        shown = _outliers(outliers, opened, seed)
        goal = recipe.objective(objective, outliers=shown)
        # the sets of the audit are opened now: a typo there must not cost a training
        found = _judged(None if not audit else _test_split(data) if test is None else test, ood, seed, workers)
        steps = epochs * -(-len(opened) // batch)
        recipe.check(optimizer, warm=warm_up, epochs=epochs, goal=goal, track=track, steps=steps, dtype=dtype)
        load = partial(models.load, model, weights, key=weights_key, normalize=normalize)
        network = load(seed=seed, say=echo)  # what cannot be trained must leave no folder behind
        training = sources.bound(opened, network)
        build = partial(_built, load, training, real=recipe.form(goal) is not None)
        network = build(seed=seed)
        judged = None if found is None else _bound(found, network)
        recipe.check_network(network, training, judged[0] if judged else None, goal=goal)
        recipe.check_kind(network, training, goal, augment=augment)
        begun = {name: options[name] for name in SETTINGS} | {
            "weights": _file_hash(weights), "contents": run_folder.digest(training), "track": sorted(track),
            "device": place.type,
        }  # fmt: skip

        def one(number: int, checkpoint: Path, watch: Sequence[str] = ()) -> "tuple[nn.Module, dict[str, Any]]":
            network = _begun(build(seed=number), goal, number, given=weights is not None).to(place)
            log = _log(number - seed, checkpoint.parent)
            history, tracked = recipe.train(
                network, training, epochs=epochs, optimizer=optimizer, rate=rate, decay=decay, batch=batch,
                augment=augment, generator=torch.Generator().manual_seed(number), checkpoint=checkpoint, track=watch,
                goal=goal, warm=warm_up, log=log, dtype=dtype,
            )  # fmt: skip
            log(history)  # of a finished run, which is only read back
            return network.cpu(), tracked

        _say_how(goal, place, dtype)
        with ExitStack() as stack:
            if ranks.by_first(partial(_claimed, stack, output, begun)):
                echo("Another number of epochs is another learning-rate schedule: training starts from the beginning.")
            network, tracked = one(seed, output / "checkpoint.safetensors", track)
            names = [*tracked] if not ranks.first() else _save(network, tracked, output)
            if members > 1:
                _ensemble(network, lambda k, where: one(k, where)[0], seed, members, output)
                names = ["ensemble", *names]
            if not ranks.first():
                return None
            posterior = next((output / f"{name}.safetensors" for name in names), None)
            return _ended(
                network.eval(), training, judged, output, posterior, goal=goal, model=model, data=data,
                test=test or _test_split(data), seed=seed, device=place, dtype=dtype,
            )  # fmt: skip


def _ended(
    network: "nn.Module",
    training: "Bound",
    judged: "tuple[Bound, dict[str, Bound]] | None",
    output: Path,
    posterior: Path | None,
    *,
    goal: "Objective",
    model: str,
    data: str,
    test: str | None,
    seed: int,
    device: "torch.device",
    dtype: str,
) -> None:
    """Audit what was trained, or say how; of certified training, say what is verified."""
    from caveat.cli import model as models
    from caveat.training import recipe

    form = recipe.form(goal)
    if judged is None:
        _next(model, data, test, output, posterior, form)
    else:
        whole = models.posterior(network, posterior, dropout=False, draws=None, seed=seed, training=training)
        _audited(whole, training, judged, output / "audit", model, seed, form=form, device=device, dtype=dtype)
    _certified(network, goal, judged and judged[0], model, test or "DATA", output)


def _claimed(stack: ExitStack, output: Path, begun: dict[str, Any]) -> bool:
    """The folder is this run's until the stack is left; whether another run had begun in it (`run_folder.claim`)."""
    from caveat.files import alone
    from caveat.training import run_folder

    stack.enter_context(alone(output))
    return run_folder.claim(output, begun)


@contextmanager
def _one_voice() -> Generator[None]:
    """Of several processes that train together the first alone prints, what is refused too: all refuse the same."""
    from caveat.training import ranks

    if ranks.first():
        yield
        return
    with redirect_stdout(io.StringIO()):
        try:
            yield
        except CaveatError:
            raise typer.Exit(2) from None


def _begun(network: "nn.Module", goal: "Objective", seed: int, *, given: bool) -> "nn.Module":
    """The network with the first weights that its objective asks for, unless they were given."""
    import torch

    from caveat.training import recipe

    layers = 0 if given else recipe.begin(network, goal, torch.Generator().manual_seed(seed))
    if layers:
        echo(
            f"The weights of {layers} layers are drawn anew, as certified training needs them (initialise=False keeps "
            "those of the network)."
        )
    return network


def _say_how(goal: "Objective", place: "torch.device", dtype: str) -> None:
    from caveat import devices
    from caveat.training import ranks, recipe

    if made := recipe.made_outliers(goal):
        echo(f"The loss is trained on outliers made by the recipe {made!r}; --outliers gives it a set of real ones.")
    several = f", in {ranks.count()} processes that each take a part of every batch" if ranks.count() > 1 else ""
    echo(f"Training on {devices.title(place)}, in {dtype}{several}.")


def _outliers(spec: str | None, training: "Set", seed: int) -> "Source | None":
    """The auxiliary outliers, which the loss mixes into batches of pictures."""
    from caveat import data as sources

    if spec is None:
        return None
    found = sources.read(spec, like=training, seed=seed)
    if not isinstance(found, sources.Source) or not isinstance(training, sources.Source):
        raise OptionError(
            f"--outliers: expected pictures in training data and outliers, got {training.name} and {spec}"
        )
    return found


def _check(
    *,
    rate: float,
    decay: float,
    optimizer: str,
    track: list[str],
    augment: list[str],
    weights: Path | None,
    output: Path,
) -> None:
    """Whatever can be checked before data are opened."""
    from caveat import posteriors

    positive("--rate", [rate])
    positive("--decay", [decay], zero=True)
    known_name("--optimizer", optimizer, ("adam", "sgd"))
    for name in augment:
        known_name("--augment", name, ("crop", "flip"))
    for name in track:
        known_name("--track", name, posteriors.FROM_TRAINING)
    existing("--weights", weights)
    output_folder(output)
    output_folder(output / "audit", OWN)


def _built(load: "Callable[..., nn.Module]", training: "Bound", *, seed: int, real: bool) -> "nn.Module":
    """The network; of a table, between its units and standardised ones."""
    from caveat.data import Numbers
    from caveat.models.normalized import Normalized
    from caveat.models.standardized import Standardized, standardized

    network = load(seed=seed)
    if not isinstance(training, Numbers) or isinstance(network, Standardized | Normalized):
        return network
    return standardized(network, training.inputs, training.labels if real else None)


def _next(
    model: str,
    data: str,
    test: str | None,
    output: Path,
    posterior: Path | None,
    form: tuple[str, tuple[float, ...]] | None,
) -> None:
    if test is None:
        echo(f"No audit was made: it needs test data, and {data} has no test split of its own; give --test.")
    words = ["caveat", "audit", "--model", model, "--weights", output / "model.safetensors", "--train", data]
    words += ["--test", test or "DATA", "-o", output / "audit", *(["--posterior", posterior] if posterior else [])]
    if form is not None:
        words += ["--task", "regression", "--outputs", form[0]]
        words += ["--levels", ",".join(f"{level:g}" for level in form[1])] if form[0] == "quantiles" else []
    echo(f"Next: {join(map(str, words))}")


def _certified(
    network: "nn.Module", goal: "Objective", known: "Bound | None", model: str, test: str, output: Path
) -> None:
    """Of certified training, the share of test pictures that intervals verify, and how to certify all of them."""
    import torch

    from caveat import bounds
    from caveat.attacks import Ball
    from caveat.objectives import CrownIbp, Ibp

    if not isinstance(goal, Ibp | CrownIbp):
        return
    if known is not None:
        inputs, labels = cast("Source", known).take(torch.arange(min(len(known), CERTIFIED)))
        ball = Ball(torch.inf, float(goal.radius))
        try:
            found = bounds.certify(network.cpu(), inputs, labels, ball, method="interval")
        except ModelError as error:  # what was trained is whole all the same
            echo(f"Nothing is verified: certificates know fewer kinds of layers than this training ({error}).")
            return
        echo(
            f"Of the first {len(labels)} test pictures {found.verified.double().mean():.1%} are verified by intervals "
            f"at radius {goal.radius:g} (no change within it changes the answer), "
            f"{found.falsified.double().mean():.1%} falsified."
        )
    words = ["caveat", "certify", "--model", model, "--weights", output / "model.safetensors", "--test", test]
    words += ["--radius", f"{goal.radius:g}", "--method", "interval", "-o", output / "certificates.parquet"]
    echo(f"Next: certified accuracy on the whole set:  {join(map(str, words))}")


def _save(network: "nn.Module", tracked: "dict[str, Any]", output: Path) -> list[str]:
    """Write the weights and what was tracked; the names of the latter."""
    from caveat import posteriors
    from caveat.training.recipe import save_weights

    save_weights(network, output / "model.safetensors")
    for name, posterior in tracked.items():
        posteriors.save(posterior, output / f"{name}.safetensors")
    return list(tracked)


def _audited(
    network: "nn.Module",
    training: "Bound",
    judged: "tuple[Bound, dict[str, Bound]]",
    folder: Path,
    model: str,
    seed: int,
    *,
    form: tuple[str, tuple[float, ...]] | None,
    device: "torch.device",
    dtype: str,
) -> None:
    """Audit what was trained; of regression `form` is what its outputs mean."""
    from caveat.audits import audit, audit_regression, cache
    from caveat.cli import audit as classes
    from caveat.cli import audit_regression as numbers
    from caveat.cli.progress import steps

    known, others = judged
    with steps() as say, cache.undone_if_refused(folder):
        if form is not None:
            record = audit_regression(
                network, known, train=training, ood=others, outputs=form[0], levels=form[1], folder=folder,
                made_by=model, seed=seed, device=device, dtype=dtype, say=say,
            )  # fmt: skip
            numbers.write(record, folder)
            shown = partial(numbers.show, record, folder)
        else:
            found = audit(
                network, known, train=training, ood=others, folder=folder, made_by=model, seed=seed, say=say,
                device=device, dtype=dtype,
            )  # fmt: skip
            classes.write(found, folder)
            shown = partial(classes.show, found, folder)
    return shown()


def _ensemble(
    network: "nn.Module", train: "Callable[[int, Path], nn.Module]", seed: int, members: int, output: Path
) -> None:
    """Train the other members, and put them together with the first."""
    from caveat import posteriors
    from caveat.training import members as several
    from caveat.training import ranks

    others = several(train, seeds=range(seed + 1, seed + members), folder=output / "members")
    first = posteriors.ensemble.state(network)
    found = posteriors.ensemble.stack([first, *(others.member(k) for k in range(len(others)))])
    if ranks.first():
        posteriors.save(found, output / "ensemble.safetensors")


def _judged(test: str | None, ood: list[str], seed: int, workers: int) -> "tuple[Set, dict[str, Set]] | None":
    """The sets of the audit at the end, opened before the training begins; None if there is no test set."""
    from caveat import data as sources
    from caveat.audits.audit import RESERVED
    from caveat.cli.audit import named

    if test is None:
        return None
    known = sources.read(test, seed=seed, workers=workers)
    others = {name: sources.read(spec, like=known, seed=seed, workers=workers) for name, spec in map(named, ood)}
    if len(others) < len(ood):
        raise OptionError("--ood: expected every name once")
    if reserved := RESERVED & set(others):
        raise OptionError(f"--ood: the name {reserved.pop()!r} is taken by the audit itself; choose another")
    return known, others


def _bound(found: "tuple[Set, dict[str, Set]]", network: "nn.Module") -> "tuple[Bound, dict[str, Bound]]":
    from caveat.data import bound

    known, others = found
    return bound(known, network), {name: bound(one, network) for name, one in others.items()}


def _file_hash(path: Path | None) -> str | None:
    import hashlib

    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"--weights: cannot read {path} ({error.strerror})") from None


def _log(member: int, folder: Path) -> "Callable[[History], None]":
    """A function that prints a line for every epoch that it has not seen yet, and writes the first member's history."""
    from caveat.training import ranks
    from caveat.training.recipe import logged

    start, write = (f"member {member + 1}: ", None) if member else ("", logged(folder) if ranks.first() else None)
    seen = 0

    def log(history: "History") -> None:
        nonlocal seen
        epochs = list(zip(history.loss, history.accuracy, history.seconds, strict=True))
        for epoch, (loss, accuracy, seconds) in enumerate(epochs[seen:], start=seen + 1):
            right = "" if accuracy is None else f", accuracy while training {accuracy:.2%}"
            # not rich: it writes past the progress bar, and whoever follows a log wants the line now
            print(f"{start}epoch {epoch}: loss {loss:.4g}{right}, {seconds:.0f} s", flush=True)
        if write is not None and len(epochs) > seen:
            write(history)
        seen = len(epochs)

    return log


def _test_split(spec: str) -> str | None:
    """The test split of a named set whose training split this is; None for other data."""
    from caveat import data

    head, *changes = spec.split("+")
    name, _, split = head.partition(":")
    if name == "uci":
        known, _, part = split.partition(":")
        return None if part.startswith("test") else f"uci:{known}:test{part.removeprefix('train')}"
    kept = [change for change in changes if not change.startswith(("first=", "sample="))]
    named = data.NAMES.get(name)
    if named is None or "test" not in named.splits or (split or named.splits[0]) == "test":
        return None
    return "+".join([f"{name}:test", *kept])
