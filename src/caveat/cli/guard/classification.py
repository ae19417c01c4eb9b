"""`caveat guard` for classifiers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from caveat.cli.guard.verdicts import Answering, named_network, names, numbers, opened, rows_of, said

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Bound, Streamed
    from caveat.guard.verdict import Verdict

__all__ = ["answering", "table_of"]


def answering(
    folder: Path, data: str, *, model: str | None, batch: int, seed: int, device: str, dtype: str | None, workers: int
) -> Answering:
    """A label or an abstention for every input."""
    from caveat import devices
    from caveat.cli import model as models
    from caveat.guard import artefact

    made = artefact.manifest(folder)
    place = devices.check(device, dtype)
    bare = models.load(named_network(model, made))
    guard = artefact.load(folder, bare).to(place)
    guard.decision = replace(guard.decision, dtype=dtype or made.dtype)
    source = opened(
        data, shape=guard.decision.shape, columns=made.columns, batch=batch, seed=seed, workers=workers, model=bare
    )
    notes = [*said(guard, made.dtype), *_numbers(source, len(guard.decision.classes))]
    return Answering(made.digest, guard.decision.dtype, guard, source, table_of(source), notes)


def _numbers(source: "Bound | Streamed", count: int) -> list[str]:
    """That labels which are numbers alone are none of the guard's, if some are."""
    beyond = source.labels[source.labels >= count]  # NaN, where a row has none, is not
    if source.classes is not None or not len(beyond):
        return []
    largest = float(beyond.max())
    ones = "; do they start at 1?" if largest == count else ""
    return [
        f"{len(beyond)} inputs have a label that is no class of the guard, whose numbers are 0 to {count - 1}: the "
        f"largest is {largest:g}{ones}. A monitor takes them for mistakes."
    ]


def table_of(source: "Bound | Streamed") -> "Callable[[Verdict, Tensor], pa.Table]":
    """From verdicts and their positions to rows."""
    from caveat.data import Encoded, Streamed

    texts = isinstance(source, Encoded) or (isinstance(source, Streamed) and source.text is not None)
    column = "text" if texts else "file"
    return lambda verdict, positions: _table(verdict, positions, column, source)


def _truth(source: "Bound | Streamed", positions: "Tensor", classes: Sequence[str]) -> "pa.Array":
    """The class of each input by name; None without one.

    Where the set names its classes, by these names: its numbers may not be the guard's. A number without a name is that
    of the guard's class, as it was when the guard was fitted; one that it has no class of is no class's name.
    """
    import pyarrow as pa

    labels, words = source.labels[positions], source.classes or classes

    def named(label: float) -> str | None:
        if not label >= 0:  # NaN is none either
            return None
        if label < len(words) and label == int(label):
            return words[int(label)]
        return f"{label:g}" if f"{label:g}" not in classes else f"number {label:g}"

    return pa.array([named(label) for label in labels.tolist()], pa.string())


def _table(verdict: "Verdict", positions: "Tensor", column: str, source: "Bound | Streamed") -> "pa.Table":
    """The verdicts as rows; `column` says where each input is, or what it is."""
    import pyarrow as pa

    from caveat.guard.verdict import INVALID, REASONS

    unseen = (verdict.reason == INVALID).cpu().numpy()  # nothing was predicted of what cannot be looked at
    count = len(verdict)
    where = None if source.place is str else [source.place(position) for position in positions.tolist()]
    return pa.table(
        {
            "index": pa.array(positions.numpy()),
            column: pa.nulls(count, pa.string()) if where is None else pa.array(where, pa.string()),
            "true_name": _truth(source, positions, verdict.classes),
            "accepted": pa.array(verdict.accepted.cpu().numpy()),
            "predicted": pa.array(verdict.predicted.cpu().numpy(), mask=unseen),
            "predicted_name": names(verdict.classes, verdict.predicted, none=unseen),
            "confidence": numbers(verdict.confidence, count),
            "score": numbers(verdict.score, count),
            "p_value": numbers(verdict.p_value, count),
            "aleatoric": numbers(verdict.aleatoric, count),
            "epistemic": numbers(verdict.epistemic, count),
            "reason": names(REASONS, verdict.reason),
            "probs": rows_of(verdict.probs),
        }
    )
