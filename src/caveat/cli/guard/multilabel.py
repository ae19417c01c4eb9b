"""`caveat guard` for multi-label networks."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from caveat.cli.guard import verdicts
from caveat.cli.terminal import echo
from caveat.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.guard.multilabel import MultilabelVerdict
    from caveat.guard.multilabel_artefact import MultilabelManifest

__all__ = ["fit", "run", "show", "tune"]


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
    echo(
        f"Guard: score {made.score} ({made.why}). Guarantee: accepts a fresh in-distribution input with probability "
        f"{made.operating.level:.1%} or more; of the labels that an accepted one has, a share of {made.error:.1%} at "
        f"most is missed in expectation. Threshold {made.operating.threshold:.6g}."
    )


def tune(folder: Path, *, keep: float | None, max_error: float | None) -> None:
    """Set another threshold; the label sets are fitted on what it accepts."""
    from caveat.cli.guard.regression import refuse
    from caveat.guard import multilabel_artefact

    refuse({"--max-error": max_error}, task="multilabel")
    if keep is None:
        raise OptionError("--keep: expected a share in (0, 1)")
    show(multilabel_artefact.tune(folder, keep=keep))


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
    """Answer with labels or abstain for every row of a set."""
    from caveat import devices
    from caveat.cli import model as models
    from caveat.guard import multilabel, multilabel_artefact

    made = multilabel_artefact.manifest(folder)
    place = devices.check(device, dtype)
    guard = multilabel.MultilabelGuard.load(folder, models.load(verdicts.named_network(model, made))).to(place)
    source = verdicts.opened(
        data, shape=made.shape, columns=made.columns, batch=batch, seed=seed, workers=workers, several=True
    )
    verdicts.in_precision(guard, dtype)

    def table(verdict: "MultilabelVerdict", start: int, positions: "Tensor") -> "pa.Table":
        known = source.labels.shape[1:] == verdict.labels.shape[1:]
        return _table(verdict, start, source.labels[positions] == 1 if known else None)

    verdicts.write(guard, source, table, output, folder)


def _table(verdict: "MultilabelVerdict", start: int, truth: "Tensor | None") -> "pa.Table":
    """The verdicts as rows, the first of them numbered `start`."""
    import pyarrow as pa

    from caveat.guard.verdict import REASONS

    def listed(present: "Tensor") -> list[list[str]]:
        return [[name for name, here in zip(verdict.names, row, strict=True) if here] for row in present.tolist()]

    count = len(verdict)
    names = pa.list_(pa.string())
    return pa.table(
        {
            "index": pa.array(range(start, start + count), pa.int64()),
            "true_labels": pa.array([None] * count if truth is None else listed(truth), names),
            "accepted": pa.array(verdict.accepted.tolist()),
            "labels": pa.array(listed(verdict.labels), names),
            "predicted": pa.array(listed(verdict.predicted), names),
            "score": pa.array(verdict.score.tolist(), pa.float64()),
            "p_value": pa.array(verdict.p_value.tolist(), pa.float64()),
            "reason": pa.array([REASONS[i] for i in verdict.reason.tolist()]),
            "probs": pa.array(verdict.probs.tolist(), pa.list_(pa.float64())),
        }
    )
