"""`caveat guard` for regression networks."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from caveat.cli.guard import verdicts
from caveat.cli.terminal import echo
from caveat.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.guard.regression import RegressionVerdict
    from caveat.guard.regression_artefact import RegressionManifest

__all__ = ["fit", "refuse", "run", "show", "tune"]


def refuse(others: Mapping[str, object], *, task: str = "regression") -> None:
    """Refuse options that a guard of this task does not have: those with a value that is not empty."""
    if names := [name for name, value in others.items() if value]:
        raise OptionError(f"{names[0]}: it is for classifiers, and this guard is of a {task} network; leave it out")


def fit(folder: Path, output: Path, *, score: str, keep: float | None, seed: int | None) -> None:
    """Fit a guard from the outputs that an audit has kept."""
    from caveat.audits import cache
    from caveat.guard import regression, regression_artefact

    held_out, about = cache.outputs(folder)
    weights = cache.weights(folder)
    levels = tuple(about["levels"])
    found = regression.distribution.of(held_out.values, about["form"], levels=levels, limited=about["limited"]).moved(
        *about["units"]
    )
    made = regression.decide(
        found, held_out.labels, form=about["form"], levels=levels, score=score,
        keep=about["keep"] if keep is None else keep,
        error=about["error"], seed=about["seed"] if seed is None else seed, shape=tuple(about["shape"]),
        limit=about["largest"], dtype=about["autocast"],
        columns=None if about["columns"] is None else tuple(about["columns"]),
    )  # fmt: skip
    regression_artefact.save(
        made, weights, output, model=str(about["model"]), wrapped=about["wrapped"], posterior=about["posterior"],
        answers=cache.answers(folder),
    )  # fmt: skip
    show(regression_artefact.manifest(output))
    named = about["model"] or "package.module:callable"
    echo(f"Next: caveat guard run {quote(str(output))} DATA --model {quote(named)} -o verdicts.parquet")


def show(made: "RegressionManifest") -> None:
    """Print what a guard guarantees."""
    echo(
        f"Guard: score {made.score} ({made.why}). Guarantee: accepts a fresh in-distribution input with probability "
        f"{made.operating.level:.1%} or more; the interval of an accepted one holds its label with probability "
        f"{1 - made.error:.1%} or more. Threshold {made.operating.threshold:.6g}."
    )


def tune(folder: Path, *, keep: float | None, max_error: float | None) -> None:
    """Set another threshold; the interval is fitted on what it accepts."""
    from caveat.guard import regression_artefact

    refuse({"--max-error": max_error})
    if keep is None:
        raise OptionError("--keep: expected a share in (0, 1)")
    show(regression_artefact.tune(folder, keep=keep))


def run(
    folder: Path,
    data: str,
    output: Path,
    *,
    model: str | None,
    batch: int,
    seed: int,
    device: str,
    dtype: str | None,
    workers: int,
) -> None:
    """Answer with an interval or abstain for every row of a set."""
    from caveat import devices
    from caveat.cli import model as models
    from caveat.guard import regression, regression_artefact

    made = regression_artefact.manifest(folder)
    place = devices.check(device, dtype)
    guard = regression.RegressionGuard.load(folder, models.load(verdicts.named_network(model, made))).to(place)
    source = verdicts.opened(data, shape=made.shape, columns=made.columns, batch=batch, seed=seed, workers=workers)
    verdicts.in_precision(guard, dtype)

    def table(verdict: "RegressionVerdict", start: int, positions: "Tensor") -> "pa.Table":
        unknown = not getattr(source, "labelled", True)
        labels = source.labels[positions].double().tolist()
        return _table(verdict, start, [None if unknown else label for label in labels])

    verdicts.write(guard, source, table, output, folder)


def _table(verdict: "RegressionVerdict", start: int, labels: list[float | None]) -> "pa.Table":
    """The verdicts as rows, the first of them numbered `start`."""
    import pyarrow as pa

    from caveat.guard.verdict import REASONS

    count = len(verdict)
    return pa.table(
        {
            "index": pa.array(range(start, start + count), pa.int64()),
            "label": pa.array(labels, pa.float64()),
            "accepted": pa.array(verdict.accepted.tolist()),
            "prediction": pa.array(verdict.prediction.tolist(), pa.float64()),
            "lower": pa.array(verdict.lower.tolist(), pa.float64()),
            "upper": pa.array(verdict.upper.tolist(), pa.float64()),
            "score": pa.array(verdict.score.tolist(), pa.float64()),
            "p_value": pa.array(verdict.p_value.tolist(), pa.float64()),
            "aleatoric": pa.array(_or_none(verdict.aleatoric, count), pa.float64()),
            "epistemic": pa.array(_or_none(verdict.epistemic, count), pa.float64()),
            "reason": pa.array([REASONS[i] for i in verdict.reason.tolist()]),
        }
    )


def _or_none(values: "object", count: int) -> list[float | None]:
    return [None] * count if values is None else values.tolist()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
