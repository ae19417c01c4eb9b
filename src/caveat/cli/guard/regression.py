"""`caveat guard` for regression networks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from caveat.cli.guard.verdicts import Answering, named_network, names, numbers, opened, said
from caveat.cli.terminal import echo
from caveat.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Bound, Streamed
    from caveat.guard.regression import RegressionVerdict
    from caveat.guard.regression_artefact import RegressionManifest

__all__ = ["answering", "fit", "refuse", "show", "table_of", "tune"]


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
    from caveat.guard.guarantee import of_intervals

    echo(
        f"Guard: score {made.score} ({made.why}). Guarantee: {of_intervals(made.operating, made.error)}. Threshold "
        f"{made.operating.threshold:.6g}."
    )


def tune(folder: Path, *, keep: float | None, max_error: float | None) -> None:
    """Set another threshold; the interval is fitted on what it accepts."""
    from caveat.guard import regression_artefact

    refuse({"--max-error": max_error})
    if keep is None:
        raise OptionError("--keep: expected a share in (0, 1)")
    show(regression_artefact.tune(folder, keep=keep))


def answering(
    folder: Path, data: str, *, model: str | None, batch: int, seed: int, device: str, dtype: str | None, workers: int
) -> Answering:
    """An interval or an abstention for every input."""
    from caveat import devices
    from caveat.cli import model as models
    from caveat.guard import regression, regression_artefact

    made = regression_artefact.manifest(folder)
    place = devices.check(device, dtype)
    guard = regression.RegressionGuard.load(folder, models.load(named_network(model, made))).to(place)
    fitted = guard.decision.dtype
    guard.decision = replace(guard.decision, dtype=dtype or fitted)
    source = opened(data, shape=made.shape, columns=made.columns, batch=batch, seed=seed, workers=workers)
    return Answering(made.digest, guard.decision.dtype, guard, source, table_of(source), said(guard, fitted))


def table_of(source: "Bound | Streamed") -> "Callable[[RegressionVerdict, Tensor], pa.Table]":
    """From verdicts and their positions to rows."""
    known = getattr(source, "labelled", True)
    return lambda verdict, positions: _table(verdict, positions, source.labels[positions].double() if known else None)


def _table(verdict: "RegressionVerdict", positions: "Tensor", labels: "Tensor | None") -> "pa.Table":
    import pyarrow as pa

    from caveat.guard.verdict import REASONS

    count = len(verdict)
    return pa.table(
        {
            "index": pa.array(positions.numpy()),
            "label": pa.nulls(count, pa.float64()) if labels is None else pa.array(labels.numpy(), from_pandas=True),
            "accepted": pa.array(verdict.accepted.cpu().numpy()),
            "prediction": numbers(verdict.prediction, count),
            "lower": numbers(verdict.lower, count),
            "upper": numbers(verdict.upper, count),
            "score": numbers(verdict.score, count),
            "p_value": numbers(verdict.p_value, count),
            "aleatoric": numbers(verdict.aleatoric, count),
            "epistemic": numbers(verdict.epistemic, count),
            "reason": names(REASONS, verdict.reason),
        }
    )
