"""A monitor over files: verdicts and labels to which new ones are added, and the state that outlives the process."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from caveat.errors import DataError
from caveat.files import reason, write_atomically
from caveat.guard import artefact, multilabel_artefact, onnx_guard, regression_artefact, stored
from caveat.guard.monitor import Monitor, kept
from caveat.guard.stored import Sealed
from caveat.guard.threshold import Promise
from caveat.guard.written import batches
from caveat.records.base import stamp
from caveat.records.monitor import Kept, Spoke, State, Watching

__all__ = ["watch"]

STATE = "monitor.json"
MANIFESTS = {
    "classification": artefact.manifest,
    "regression": regression_artefact.manifest,
    "multilabel": multilabel_artefact.manifest,
}
SPOKE = 24
"""Inputs that are named as those that speak most for a change."""


class _Kept(Kept):
    """What stands in the file: also what the monitor has seen, to know that again."""

    verdicts: str
    """SHA-256 of scores and decisions so far."""
    labels: str
    labelled: int
    """Labels so far, those of inputs that were not accepted among them."""


def watch(
    guard: str | Path,
    verdicts: str | Path,
    folder: str | Path,
    *,
    labels: str | Path | None = None,
    level: float = 0.01,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Watching:
    """Take what was added to `verdicts` and `labels` since the state in `folder` was written, and write it anew.

    A process that is killed leaves the state as it was, and the next takes the same verdicts again: the same alarm at
    the same input.

    Raises
    ------
    DataError
        If the verdicts are of another guard or threshold, or verdicts or labels that were taken have changed.
    OptionError
        As `Monitor`.
    """
    made = _known(Path(guard), level=level, seed=seed)
    monitor = made.monitor
    there = kept(
        Path(folder) / STATE, _Kept, guard=made.digest, name="state", what="a monitor",
        remedy="begin anew with another output folder",
    )  # fmt: skip
    if there is not None:
        monitor.resume(there.state)
    before, foreign = monitor.state.seen, Counter[str]()
    classes = made.classes
    say("reading the verdicts")
    told = _Digest("verdicts", before, "" if there is None else there.verdicts)
    said = _Digest("labels", 0 if there is None else there.labelled, "" if there is None else there.labels)
    for part in _parts(verdicts, monitor.threshold):
        fresh = told.add(part.scores, part.accepted)
        monitor.update(part.scores[fresh:], part.accepted[fresh:])
        if labels is None and classes is not None:
            foreign.update(name for name in part.true if name is not None and name not in classes)
            known = np.array([name in classes for name in part.true], dtype=bool)
            _learn(monitor, said, part.accepted[known], part.wrong()[known])
    told.check()
    if labels is not None and classes is not None:
        _learn_late(monitor, said, Path(labels), verdicts, classes)
    said.check()
    out = _Kept(
        **stamp(), guard=made.digest, verdicts=told.now, labels=said.now, labelled=said.count, state=monitor.state
    )
    write_atomically(Path(folder) / STATE, out.model_dump_json())
    return Watching(
        state=monitor.state, sentences=[*monitor.sentences(), *_not_counted(foreign)],
        fresh=monitor.state.seen - before, labelled=said.count, model=made.model, spoke=_spoke(verdicts, monitor.state),
    )  # fmt: skip


def _not_counted(foreign: Counter[str]) -> list[str]:
    if not foreign:
        return []
    named = ", ".join(repr(name) for name, _ in foreign.most_common(3))
    return [
        f"{foreign.total()} inputs have a label that is no class of the guard ({named}): whether their answers are "
        "right is not known, and they are not among the labels."
    ]


class _Digest:
    """Knows rows again that were taken before, and counts those that are new."""

    def __init__(self, name: str, seen: int, expected: str) -> None:
        self.name, self.seen, self.expected = name, seen, expected
        self.count, self._hash = 0, hashlib.sha256()
        self._same = not seen

    def add(self, *columns: np.ndarray) -> int:
        """Take rows in; how many of them were taken before."""
        rows = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
        old = min(max(self.seen - self.count, 0), len(rows))
        self._hash.update(rows[:old].tobytes())
        if old and self.count + old == self.seen:
            self._same = self.now == self.expected
        self._hash.update(rows[old:].tobytes())
        self.count += len(rows)
        return old

    @property
    def now(self) -> str:
        return self._hash.hexdigest()

    def check(self) -> None:
        """Refuse if the rows that were taken before are no longer there.

        Raises
        ------
        DataError
            If they are not.
        """
        if self.count < self.seen or not self._same:
            raise DataError(
                f"{self.name}: the first {self.seen} are not those that were read before; only add new ones after "
                "them (files are read in the order of their names), or begin anew with another output folder"
            )


@dataclass(frozen=True)
class _Verdicts:
    """Some verdicts in order."""

    scores: np.ndarray
    accepted: np.ndarray
    true: list[str | None]
    predicted: list[str | None]

    def wrong(self) -> np.ndarray:
        """Which answers are not the label."""
        return np.array([one != other for one, other in zip(self.true, self.predicted, strict=True)], dtype=bool)


def _parts(path: str | Path, threshold: float) -> Iterator[_Verdicts]:
    start = 0
    for batch in batches(path, ["index", "score", "accepted"], optional=["true_name", "predicted_name"]):
        found = batch.to_pydict()
        scores = np.array(found["score"], dtype=np.float64)  # None is NaN
        accepted, count = np.array(found["accepted"], dtype=bool), len(scores)
        wrong = np.flatnonzero(accepted != (scores <= threshold))
        for row in wrong[np.isfinite(scores[wrong])][:1]:
            raise DataError(
                f"verdicts: input {start + int(row)} scores {scores[row]:.6g} and is "
                f"{'accepted' if accepted[row] else 'refused'}, which it is not at this guard's threshold of "
                f"{threshold:.6g}: they are of another guard, or of another threshold of it"
            )
        none = [None] * count
        yield _Verdicts(scores, accepted, found.get("true_name", none), found.get("predicted_name", none))
        start += count


def _learn(monitor: Monitor, said: _Digest, accepted: np.ndarray, wrong: np.ndarray) -> None:
    old = said.add(accepted, wrong)
    monitor.learn(wrong[old:][accepted[old:]])


def _learn_late(monitor: Monitor, said: _Digest, path: Path, verdicts: str | Path, names: set[str]) -> None:
    """Labels from a file of their own, in its order."""
    key, rows = _labels(path)
    wanted, found = set[int](), dict[int, tuple[bool, str | None]]()
    for row, (index, name) in enumerate(rows):
        if name not in names:
            raise DataError(f"labels: row {row} of {path} has the label {name!r}, which is no class of the guard")
        if index in wanted:
            raise DataError(f"labels: row {row} of {path} labels input {index} again; give each label once")
        wanted.add(index)
    position = 0
    for batch in batches(verdicts, ["index", "accepted", "predicted_name"]):
        columns = batch.to_pydict()
        for index, accepted, predicted in zip(*columns.values(), strict=True):
            if key == "index" and index != position:
                raise DataError(
                    f"labels: the verdicts are of several runs, each of which numbers its inputs from 0, so that the "
                    f"column index of {path} is ambiguous; name it position: the number of the verdict among all, in "
                    "the order of the files' names"
                )
            if position in wanted:
                found[position] = (accepted, predicted)
            position += 1
    if lost := sorted(wanted - found.keys()):
        raise DataError(f"labels: {path} labels input {lost[0]}, of which there is no verdict")
    accepted = np.array([found[index][0] for index, _ in rows], dtype=bool)
    wrong = np.array([found[index][1] != name for index, name in rows], dtype=bool)
    _learn(monitor, said, accepted, wrong)


def _labels(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """By which column inputs are named, and number and label of each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Mapping[str, object]]
    try:
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
        else:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"labels: cannot read {path} ({reason(error)})") from None
    key = "position" if rows and "position" in rows[0] else "index"
    labelled: list[tuple[int, str]] = []
    for number, row in enumerate(rows):
        index, name = str(row.get(key)), row.get("label")
        if not index.isdecimal() or name is None:
            raise DataError(
                f"labels: expected the columns index (or position) and label, row {number} of {path} holds {dict(row)}"
            )
        labelled.append((int(index), str(name)))
    return key, labelled


@dataclass(frozen=True)
class _Known:
    """What is known of the guard that is watched."""

    digest: str
    model: str
    classes: set[str] | None
    """None where no answer is simply right or wrong."""
    monitor: Monitor


def _known(guard: Path, *, level: float, seed: int) -> _Known:
    """Of a guard's folder, or of what it was exported as."""
    if guard.suffix == ".onnx" and not guard.is_dir():
        graph = onnx_guard.load(guard)
        return _Known(graph.digest, "", set(graph.about.classes), graph.about.monitor(level=level, seed=seed))
    made = MANIFESTS[stored.task_of(guard)](guard)
    classes = set(made.classes) if isinstance(made, artefact.Manifest) else None
    return _Known(made.digest, made.model, classes, _monitor(guard, made, level=level, seed=seed))


def _monitor(guard: Path, made: Sealed, *, level: float, seed: int) -> Monitor:
    tensors = stored.tensors(guard, "guard", made)
    wrong: Tensor | None = tensors.get("reference_wrong")
    if "reference" not in tensors:
        raise DataError("guard: its tensors lack the reference scores")
    held = Promise(**made.operating.model_dump())  # pyright: ignore[reportAttributeAccessIssue]  # every task has one
    return Monitor(tensors["reference"], wrong, held, level=level, seed=seed)


def _spoke(verdicts: str | Path, state: State) -> list[Spoke]:
    """The inputs with the highest scores, after the change where one was found."""
    since = next((alarm.since for alarm in state.alarms if alarm.watched == "scores"), 0)
    best: list[tuple[float, Spoke]] = []
    start = 0
    for batch in batches(verdicts, ["index", "score"], optional=["file", "text", "predicted_name"]):
        found = batch.to_pydict()
        scores = np.nan_to_num(np.array(found["score"], dtype=np.float64), nan=np.inf)
        places = np.argsort(-scores, kind="stable")
        fresh = [int(place) for place in places if start + place >= since][:SPOKE]
        for place in fresh:
            index, where = found["index"][place], found.get("file", found.get("text"))
            one = Spoke(
                index=index, place=(where[place] if where else None) or "",
                predicted=(found["predicted_name"][place] if "predicted_name" in found else None) or "",
                score=float(scores[place]) if np.isfinite(scores[place]) else None,
            )  # fmt: skip
            best.append((float(scores[place]), one))
        best = sorted(best, key=lambda pair: -pair[0])[:SPOKE]
        start += len(scores)
    return [one for _, one in best]
