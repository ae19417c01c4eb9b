"""`caveat guard` for multi-label networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from caveat.cli.guard.verdicts import Answering, named_network, names, numbers, opened, rows_of, said
from caveat.cli.terminal import echo
from caveat.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Bound, Streamed
    from caveat.guard.multilabel import MultilabelVerdict
    from caveat.guard.multilabel_artefact import MultilabelManifest

__all__ = ["answering", "fit", "show", "table_of", "tune"]


def fit(folder: Path, output: Path, *, score: str, keep: float | None, seed: int | None) -> None:
    """Fit a guard from the outputs that an audit has kept."""
    from caveat.audits import cache
    from caveat.guard import multilabel, multilabel_artefact

    held_out, about = cache.outputs(folder)
    weights = cache.weights(folder)
    made = multilabel.decide(
        held_out.values, multilabel.check_labels(held_out, "held_out"), score=score, keep=about["keep"] if keep is None
        else keep, error=about["error"], seed=about["seed"] if seed is None else seed, names=about["names"],
        shape=tuple(about["shape"]), limit=about["largest"], dtype=about["autocast"],
        columns=None if about["columns"] is None else tuple(about["columns"]),
    )  # fmt: skip
    multilabel_artefact.save(
        made, weights, output, model=str(about["model"]), posterior=about["posterior"], form=about["adapted"],
        answers=cache.answers(folder),
    )  # fmt: skip
    show(multilabel_artefact.manifest(output))
    named = about["model"] or "package.module:callable"
    echo(f"Next: caveat guard run {quote(str(output))} DATA --model {quote(named)} -o verdicts.parquet")


def show(made: "MultilabelManifest") -> None:
    """Print what a guard guarantees."""
    from caveat.guard.guarantee import of_label_sets

    echo(
        f"Guard: score {made.score} ({made.why}). Guarantee: {of_label_sets(made.operating, made.error)}. Threshold "
        f"{made.operating.threshold:.6g}."
    )


def tune(folder: Path, *, keep: float | None, max_error: float | None) -> None:
    """Set another threshold; the label sets are fitted on what it accepts."""
    from caveat.cli.guard.regression import refuse
    from caveat.guard import multilabel_artefact

    refuse({"--max-error": max_error}, task="multilabel")
    if keep is None:
        raise OptionError("--keep: expected a share in (0, 1)")
    show(multilabel_artefact.tune(folder, keep=keep))


def answering(
    folder: Path, data: str, *, model: str | None, batch: int, seed: int, device: str, dtype: str | None, workers: int
) -> Answering:
    """Labels or an abstention for every input."""
    from caveat import devices
    from caveat.cli import model as models
    from caveat.guard import multilabel, multilabel_artefact

    made = multilabel_artefact.manifest(folder)
    place = devices.check(device, dtype)
    guard = multilabel.MultilabelGuard.load(folder, models.load(named_network(model, made))).to(place)
    fitted = guard.decision.dtype
    guard.decision = replace(guard.decision, dtype=dtype or fitted)
    source = opened(data, shape=made.shape, columns=made.columns, batch=batch, seed=seed, workers=workers, several=True)
    return Answering(made.digest, guard.decision.dtype, guard, source, table_of(source), said(guard, fitted))


def table_of(source: "Bound | Streamed") -> "Callable[[MultilabelVerdict, Tensor], pa.Table]":
    """From verdicts and their positions to rows."""

    def table(verdict: "MultilabelVerdict", positions: "Tensor") -> "pa.Table":
        known = source.labels.shape[1:] == verdict.labels.shape[1:]
        return _table(verdict, positions, source.labels[positions] == 1 if known else None)

    return table


def _table(verdict: "MultilabelVerdict", positions: "Tensor", truth: "Tensor | None") -> "pa.Table":
    import pyarrow as pa

    from caveat.guard.verdict import REASONS

    def listed(present: "Tensor") -> list[list[str]]:
        return [[name for name, here in zip(verdict.names, row, strict=True) if here] for row in present.tolist()]

    count = len(verdict)
    words = pa.list_(pa.string())
    return pa.table(
        {
            "index": pa.array(positions.numpy()),
            "true_labels": pa.array([None] * count if truth is None else listed(truth), words),
            "accepted": pa.array(verdict.accepted.cpu().numpy()),
            "labels": pa.array(listed(verdict.labels), words),
            "predicted": pa.array(listed(verdict.predicted), words),
            "score": numbers(verdict.score, count),
            "p_value": numbers(verdict.p_value, count),
            "reason": names(REASONS, verdict.reason),
            "probs": rows_of(verdict.probs),
        }
    )
