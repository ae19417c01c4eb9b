"""A monitor over files: verdicts and labels to which new ones are added, and the state that outlives the process."""

import csv
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from caveat.errors import DataError
from caveat.files import reason, write_atomically
from caveat.guard import artefact, onnx_guard, stored
from caveat.guard.monitor import Monitor, kept
from caveat.guard.stored import Sealed
from caveat.guard.tasks import artefact_of
from caveat.guard.threshold import Promise
from caveat.guard.written import about, batches, files, shard_number
from caveat.records.base import Part, digest, stamp
from caveat.records.monitor import Kept, Spoke, Watching

__all__ = ["watch"]

STATE = "monitor.json"
SPOKE = 24
"""Inputs that are named as those that speak most for a change."""
YOUNG = 2_000_000_000
"""Nanoseconds within which a file may be written to again without its time telling it."""


class _File(Part):
    """A file of verdicts that was taken, to know it again."""

    name: str
    size: int
    modified: int
    """When, in nanoseconds; 0 where it was too young to tell whether it will be written to again at once."""
    rows: int
    sha256: str
    """Of scores and decisions."""
    labels: int
    """Labels in it, those of inputs that were not accepted among them."""
    labels_sha256: str
    in_order: bool
    """Whether `index` is the number of the verdict among all."""
    foreign: dict[str, int]
    """Labels that are no class of the guard, and how often they stand there."""


class _Taken(Part):
    """What the monitor has seen, to know that again."""

    files: list[_File]
    """In the order in which they were read: only the last may grow."""
    labels: str
    """SHA-256 of the labels of a file of their own so far."""
    labelled: int
    """How many these are."""
    spoke: list[Spoke]
    since: int
    """The verdict from which on inputs may be named in `spoke`."""


class _Kept(Kept):
    """What stands in the file."""

    schema_version: Literal[2] = 2  # pyright: ignore[reportIncompatibleVariableOverride]  # it stands for itself
    taken: _Taken
    sha256: str
    """Of `taken`, which would be believed if it were altered."""


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

    Of files that are as they were (name, size, time of their last change) nothing is read; others are compared with
    what was read of them. A process that is killed leaves the state as it was, and the next takes the same verdicts
    again: the same alarm at the same input.

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
    taken = _Taken(files=[], labels="", labelled=0, spoke=[], since=0)
    if there is not None:
        if digest(there.taken.model_dump()) != there.sha256:
            raise DataError("state: it was altered after it was written; begin anew with another output folder")
        monitor.resume(there.state)
        taken = there.taken
    before = monitor.state.seen
    say("reading the verdicts")
    own = made.classes if labels is None else None
    stream = _Stream(monitor, made.digest, own, taken.files, taken.spoke)
    stream.take(files(verdicts))
    since = next((alarm.since for alarm in monitor.state.alarms if alarm.watched == "scores"), 0)
    if since != taken.since:
        stream.look_again(since)
    late = taken.labels, taken.labelled
    if labels is not None and made.classes is not None:
        late = stream.learn(Path(labels), *late, made.classes)
    elif late[1]:
        raise DataError(_changed("labels", late[1]))
    now = _Taken(files=stream.now, labels=late[0], labelled=late[1], spoke=stream.spoke, since=since)
    out = _Kept(**stamp(), guard=made.digest, state=monitor.state, taken=now, sha256=digest(now.model_dump()))
    write_atomically(Path(folder) / STATE, out.model_dump_json())
    return Watching(
        state=monitor.state, sentences=[*monitor.sentences(), *_not_counted(stream.foreign)],
        fresh=monitor.state.seen - before, labelled=late[1] + sum(file.labels for file in stream.now), model=made.model,
        spoke=stream.spoke,
    )  # fmt: skip


def _changed(name: str, seen: int, where: str = "") -> str:
    return (
        f"{name}: the first {seen} are not those that were read before{where}; only add new ones after them (files are "
        "read in the order of their names), or begin anew with another output folder"
    )


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

    def __init__(self, seen: int, expected: str) -> None:
        self.seen, self.expected = seen, expected
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

    @property
    def same(self) -> bool:
        """Whether the rows that were taken before are still there."""
        return self.count >= self.seen and self._same


class _Stream:
    """Verdicts in files, of which some were taken before."""

    def __init__(
        self, monitor: Monitor, guard: str, classes: set[str] | None, known: list[_File], spoke: list[Spoke]
    ) -> None:
        self._monitor, self._guard, self._classes, self._known = monitor, guard, classes, known
        self._paths: list[Path] = []
        self.now: list[_File] = []
        self.spoke = spoke
        self.start = 0
        """Verdicts in the files so far."""

    @property
    def foreign(self) -> Counter[str]:
        """Labels that are no class of the guard."""
        found = Counter[str]()
        for file in self.now:
            found.update(file.foreign)
        return found

    def take(self, paths: list[Path]) -> None:
        """Take what is new in files, in their order."""
        self._paths = paths
        if lost := self._known[len(paths) :]:
            seen = sum(file.rows for file in self._known)
            raise DataError(_changed("verdicts", seen, f": {lost[0].name} is no longer there"))
        for number, path in enumerate(paths):
            old = self._known[number] if number < len(self._known) else None
            about = path.stat()
            own_labels = self._classes is not None or not (old and old.labels)
            if (
                old
                and own_labels
                and (path.name, about.st_size, about.st_mtime_ns) == (old.name, old.size, old.modified)
            ):
                self.now.append(old)
            else:
                self.now.append(self._taken(path, old, later=self._known[number + 1 :]))
            self.start += self.now[-1].rows

    def _taken(self, path: Path, old: _File | None, *, later: list[_File]) -> _File:
        status, now = path.stat(), time.time_ns()
        _check_run(path, self._guard)
        told = _Digest(old.rows, old.sha256) if old else _Digest(0, "")
        said = _Digest(old.labels, old.labels_sha256) if old else _Digest(0, "")
        foreign, in_order, start = Counter[str](), True, self.start
        for part in _parts(path, self._monitor.threshold, start):
            fresh = told.add(part.scores, part.accepted)
            if fresh < len(part.scores) and later:
                break  # said below: nothing is learnt of it
            self._monitor.update(part.scores[fresh:], part.accepted[fresh:])
            in_order = in_order and part.index == list(range(start, start + len(part.index)))
            self._name(part, fresh)
            start += len(part.scores)
            if self._classes is not None:
                foreign.update(name for name in part.true if name is not None and name not in self._classes)
                known = np.array([name in self._classes for name in part.true], dtype=bool)
                more = said.add(part.accepted[known], part.wrong()[known])
                self._monitor.learn(part.wrong()[known][more:][part.accepted[known][more:]])
        if not told.same or (later and told.count > told.seen):
            raise DataError(_changed("verdicts", sum(file.rows for file in self._known), f": {path.name} has changed"))
        if not said.same or (said.count > said.seen and any(file.labels for file in later)):
            raise DataError(_changed("labels", sum(file.labels for file in self._known), f": {path.name} has changed"))
        return _File(
            name=path.name, size=status.st_size,
            modified=status.st_mtime_ns if now - status.st_mtime_ns > YOUNG else 0,
            rows=told.count, sha256=told.now, labels=said.count, labels_sha256=said.now, in_order=in_order,
            foreign=dict(foreign),
        )  # fmt: skip

    def _name(self, part: "_Verdicts", first: int) -> None:
        """Keep of the inputs from a row on those that score highest, and of what was kept the same."""
        scores = np.nan_to_num(part.scores, nan=np.inf)
        places = [int(place) for place in np.argsort(-scores, kind="stable") if place >= first][:SPOKE]
        named = [
            Spoke(
                index=part.index[place], place=part.place[place] or "", predicted=part.predicted[place] or "",
                score=float(scores[place]) if np.isfinite(scores[place]) else None,
            )
            for place in places
        ]  # fmt: skip
        highest = sorted([*self.spoke, *named], key=lambda one: -math.inf if one.score is None else -one.score)
        self.spoke = highest[:SPOKE]

    def look_again(self, since: int) -> None:
        """Name the inputs that speak most from a verdict on, where a change was found."""
        self.spoke, start = [], 0
        for path, file in zip(self._paths, self.now, strict=True):
            if start + file.rows > since:
                place = start
                for part in _parts(path, self._monitor.threshold, start):
                    self._name(part, max(0, since - place))
                    place += len(part.scores)
            start += file.rows

    def learn(self, path: Path, before: str, count: int, names: set[str]) -> tuple[str, int]:
        """Labels from a file of their own, in its order: their hash and how many they are."""
        key, rows = _labels(path)
        _check_labels(path, rows, names)
        if any(file.labels for file in self._known):
            raise DataError(_changed("labels", sum(file.labels for file in self._known)))
        if hashlib.sha256(repr(rows[:count]).encode()).hexdigest() != before and count:
            raise DataError(_changed("labels", count))
        if rows and key == "index" and not all(file.in_order for file in self.now):
            raise DataError(
                f"labels: the verdicts are of several runs, each of which numbers its inputs from 0, so that the "
                f"column index of {path} is ambiguous; name it position: the number of the verdict among all, in "
                "the order of the files' names"
            )
        found = self._answers({position for position, _ in rows[count:]}, path)
        accepted = np.array([found[position][0] for position, _ in rows[count:]], dtype=bool)
        wrong = np.array([found[position][1] != name for position, name in rows[count:]], dtype=bool)
        self._monitor.learn(wrong[accepted])
        return hashlib.sha256(repr(rows).encode()).hexdigest(), len(rows)

    def _answers(self, wanted: set[int], path: Path) -> dict[int, tuple[bool, str | None]]:
        """Whether the verdicts of these numbers accept, and what they predict."""
        if lost := sorted(position for position in wanted if position >= self.start):
            raise DataError(f"labels: {path} labels input {lost[0]}, of which there is no verdict")
        found, start = dict[int, tuple[bool, str | None]](), 0
        for place, file in zip(self._paths, self.now, strict=True):
            if not wanted.isdisjoint(range(start, start + file.rows)):
                position = start
                for batch in batches(place, ["accepted", "predicted_name"]):
                    for answer in zip(*batch.to_pydict().values(), strict=True):
                        if position in wanted:
                            found[position] = answer
                        position += 1
            start += file.rows
        return found


@dataclass(frozen=True)
class _Verdicts:
    """Some verdicts in order."""

    index: list[int]
    scores: np.ndarray
    accepted: np.ndarray
    true: list[str | None]
    predicted: list[str | None]
    place: list[str | None]
    """File or text of the input."""

    def wrong(self) -> np.ndarray:
        """Which answers are not the label."""
        return np.array([one != other for one, other in zip(self.true, self.predicted, strict=True)], dtype=bool)


def _check_run(path: Path, guard: str) -> None:
    """Refuse verdicts that say they are of another guard, and numbered parts of a run that stand at another place."""
    made = about(path)[0] or {}
    if made.get("guard", guard) != guard:
        raise DataError(
            f"verdicts: {path} is of another guard, or of another threshold of it; watch it with the guard, or the "
            "exported graph, that it was made with"
        )
    number, told = shard_number(path), {"rows", "start"} <= made.keys()
    if number is not None and told and made["start"] != number * made["rows"]:
        raise DataError(
            f"verdicts: {path} begins at input {made['start']} of its run and stands where input "
            f"{number * made['rows']} is expected: it is the copy of another part; remove it, and the same caveat "
            "guard run makes it again"
        )


def _parts(path: Path, threshold: float, start: int) -> Iterator[_Verdicts]:
    """The verdicts of a file; `start` came before it."""
    optional = ["true_name", "predicted_name", "file", "text"]
    for batch in batches(path, ["index", "score", "accepted"], optional=optional):
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
        yield _Verdicts(
            found["index"], scores, accepted, found.get("true_name", none), found.get("predicted_name", none),
            found.get("file", found.get("text", none)),
        )  # fmt: skip
        start += count


def _check_labels(path: Path, rows: list[tuple[int, str]], names: set[str]) -> None:
    """Refuse labels of no class, or of an input that was labelled before."""
    labelled = set[int]()
    for row, (index, name) in enumerate(rows):
        if name not in names:
            raise DataError(f"labels: row {row} of {path} has the label {name!r}, which is no class of the guard")
        if index in labelled:
            raise DataError(f"labels: row {row} of {path} labels input {index} again; give each label once")
        labelled.add(index)


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
        classes = set(graph.about.classes) if graph.about.task == "classification" else None
        return _Known(graph.digest, "", classes, graph.about.monitor(level=level, seed=seed))
    made = artefact_of(guard).manifest(guard)
    classes = set(made.classes) if isinstance(made, artefact.Manifest) else None
    return _Known(made.digest, made.model, classes, _monitor(guard, made, level=level, seed=seed))


def _monitor(guard: Path, made: Sealed, *, level: float, seed: int) -> Monitor:
    tensors = stored.tensors(guard, "guard", made)
    wrong: Tensor | None = tensors.get("reference_wrong")
    if "reference" not in tensors:
        raise DataError("guard: its tensors lack the reference scores")
    held = Promise(**made.operating.model_dump())  # pyright: ignore[reportAttributeAccessIssue]  # every task has one
    return Monitor(tensors["reference"], wrong, held, level=level, seed=seed)
