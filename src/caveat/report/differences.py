"""What differs between records of audits, and whether it is more than noise.

Every record is held against the first. Two values differ clearly if their intervals do not overlap; that is a cautious
test, and more so on the same inputs, where figures rise and fall together: where intervals overlap, nothing is claimed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from caveat.errors import OptionError
from caveat.records.record import Calibration, Detection, Estimate, Performance, Record, SetSummary
from caveat.report import picks
from caveat.report.shown import BARE, Kind, Name, Part, shown

__all__ = ["Cell", "Row", "Verdict", "apart", "checked", "judged", "key_rows", "known_rows", "shared_sets", "told",
           "unknown_rows"]  # fmt: skip

Verdict = Literal["better", "worse", "noise", "same", "other data"]
FEWEST, MOST = 2, 6
Records = Mapping[str, Record]


@dataclass(frozen=True)
class Cell:
    """One record's figure, and how it stands to the first record's."""

    value: Estimate | None
    score: str | None = None
    """Whose figure it is, where every record has a score of its own."""
    change: float | None = None
    """Minus the first record's."""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Row:
    """One figure of all records, in their order."""

    metric: str
    about: str
    """What it is a figure of: a calibration, a score, or how the score was picked."""
    kind: Kind
    up: bool
    """Whether higher is better."""
    cells: tuple[Cell, ...]
    ood: str = ""
    """The OOD set it is about, if any."""


@dataclass(frozen=True)
class _Measure:
    title: str
    kind: Kind
    up: bool


KNOWN: list[tuple[_Measure, Callable[[Performance], Estimate]]] = [
    (_Measure("Accuracy", "percent", True), lambda found: found.accuracy),
    (_Measure("NLL", "plain", False), lambda found: found.nll),
    (_Measure("Brier", "plain", False), lambda found: found.brier),
    (_Measure("ECE", "percent", False), lambda found: found.ece),
]
OOD: list[tuple[_Measure, Callable[[Detection], Estimate]]] = [
    (_Measure("AUROC", "percent", True), lambda found: found.auroc),
    (_Measure("FPR at 95 % TPR", "percent", False), lambda found: found.fpr_at_95_tpr),
]

IN_WORDS = {"Accuracy": "accuracy", "Brier": "Brier score", "FPR at 95 % TPR": "FPR"}


def checked(records: Records) -> Records:
    """Return the records if there are as many as can stand side by side.

    Raises
    ------
    OptionError
        If not.
    """
    if not FEWEST <= len(records) <= MOST:
        raise OptionError(f"records: expected {FEWEST} to {MOST} to compare, got {len(records)}")
    return records


def known_rows(records: Records) -> list[Row]:
    """Accuracy, NLL, Brier score and ECE, for every calibration that the first record shares with another."""
    tables = [{item.name: item for item in record.calibrations} for record in records.values()]
    same = _same_known(records)

    def row(measure: _Measure, read: Callable[[Performance], Estimate], name: str) -> Row:
        def value(table: Mapping[str, Calibration]) -> Estimate | None:
            return read(table[name].summary) if name in table else None

        return _row(measure, name, [(value(table), None) for table in tables], same)

    return [row(measure, read, name) for measure, read in KNOWN for name in _shared(tables)]


def unknown_rows(records: Records, ood: str) -> tuple[list[Row], list[Row]]:
    """AUROC and FPR on one shared set: of the chosen and the best score of every record; and of every shared score."""
    tables = [{d.score: d for d in record.detections if d.ood == ood} for record in records.values()]
    first = next(iter(records.values()))
    held = [_sets(record).get(ood) for record in records.values()]
    tables = [table if item else {} for table, item in zip(tables, held, strict=True)]
    same = [
        known and item is not None and held[0] is not None and _same_ood((first, held[0]), (record, item))
        for known, item, record in zip(_same_known(records), held, records.values(), strict=True)
    ]
    chosen = [record.choice.score if record.choice else None for record in records.values()]
    best = [picks.best_score(record) for record in records.values()]

    def rows(about: str, names: Sequence[str | None], *, told: bool) -> list[Row]:
        found = [(table.get(name or ""), name) for table, name in zip(tables, names, strict=True)]
        return [
            _row(measure, about, [(read(d) if d else None, name if d and told else None) for d, name in found], same)
            for measure, read in OOD
        ]

    picked = [*(rows("chosen", chosen, told=True) if all(chosen) else []), *rows("best in hindsight", best, told=True)]
    each = [row for name in _shared(tables) for row in rows(name, [name] * len(tables), told=False)]
    return picked, each


def shared_sets(records: Records) -> list[str]:
    """OOD sets that the first record has in common with another: the same name and, where it is known, content."""
    first, *others = records.values()
    return [
        name
        for name, item in _sets(first).items()
        if any((twin := _sets(other).get(name)) and _same_ood((first, item), (other, twin)) for other in others)
    ]


def key_rows(records: Records) -> list[Row]:
    """What a reader asks first: the networks as they are, and the chosen scores (the best, where none is chosen)."""
    rows = [row for row in known_rows(records) if row.about == "none"]
    for name in shared_sets(records):
        picked, _ = unknown_rows(records, name)
        rows += [replace(row, ood=name) for row in picked[: len(OOD)]]
    return rows


def judged(records: Records) -> list[list[Part]]:
    """One sentence per further record: in what it is clearly better or worse than the first."""
    names, rows = list(records), key_rows(records)
    sentences: list[list[Part]] = []
    for at, name in enumerate(names[1:], start=1):
        found: dict[Verdict, list[Row]] = {}
        for row in rows:
            if verdict := row.cells[at].verdict:
                found.setdefault(verdict, []).append(row)
        parts = [
            f"clearly {verdict} in {_listed(found[verdict])}" for verdict in ("better", "worse") if verdict in found
        ]
        if "noise" in found or "same" in found:
            parts.append(f"without clear difference in {'all else' if parts else 'all that can be compared'}")
        middle = "; ".join(parts) or "not comparable: not the same data"
        sentences.append(["Against ", Name(names[0]), ", ", Name(name), f" is {middle}."])
    return sentences


def apart(records: Records) -> list[list[Part]]:
    """What cannot be compared, and why."""
    names, values = list(records), list(records.values())
    lines: list[list[Part]] = []
    for name, same in zip(names, _same_known(records), strict=True):
        if not same:
            tail = " was not judged on the same in-distribution data: differences are those of the data, too."
            lines.append([Name(name), tail])
    for name, record in zip(names[1:], values[1:], strict=True):
        for ood, item in _sets(record).items():
            twin = _sets(values[0]).get(ood)
            if twin and not _same_ood((values[0], twin), (record, item)):
                text = ": other inputs, though from " if twin.source == item.source else f": {twin.source} in one, "
                text += f"{item.source}." if twin.source == item.source else f"{item.source} in the other."
                lines.append(["The set ", Name(ood), " is not the same in ", Name(names[0]), " and ", Name(name), text])
    lines += _by_name(names, values)
    if len(values) > 1 and not shared_sets(records):
        lines.append(["No OOD set is shared: figures on OOD inputs cannot be compared."])
    for what, tables in {
        "OOD set": [_sets(record) for record in values],
        "score": [{item.name for item in record.scores} for record in values],
        "calibration": [{item.name for item in record.calibrations} for record in values],
    }.items():
        lines += _lone(what, names, [list(table) for table in tables])
    return lines


def told(names: Sequence[str]) -> str:
    """Names as a list in words.

    >>> told(["accuracy", "NLL", "ECE"])
    'accuracy, NLL and ECE'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _listed(rows: Sequence[Row]) -> str:
    """Figures in words, those on OOD sets gathered: `accuracy, AUROC on a and b`."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(IN_WORDS.get(row.metric, row.metric), []).append(row.ood)
    listed = [f"{metric} on {told(names)}" if any(names) else metric for metric, names in places.items()]
    return ", ".join(listed) if any(" on " in item for item in listed) else told(listed)


def _lone(what: str, names: Sequence[str], tables: Sequence[Sequence[str]]) -> list[list[Part]]:
    """What the first record has and no other, and what the others have and the first has not."""
    lines: list[list[Part]] = []
    for at, (name, table) in enumerate(zip(names, tables, strict=True)):
        held = {item for other in (tables[:1] if at else tables[1:]) for item in other}
        if alone := sorted(set(table) - held):
            where: list[Part] = ["In ", Name(name), " but not in ", Name(names[0])] if at else ["Only in ", Name(name)]
            lines.append([*where, f": the {what}{'s' if len(alone) > 1 else ''} {told(alone)}."])
    return lines


def _row(
    measure: _Measure, about: str, found: Sequence[tuple[Estimate | None, str | None]], same: Sequence[bool]
) -> Row:
    first = found[0][0]
    cells = [Cell(first, found[0][1])]
    for (value, score), comparable in zip(found[1:], same[1:], strict=True):
        if value is None or first is None:
            cells.append(Cell(value, score))
        else:
            verdict = _verdict(first, value, measure) if comparable else "other data"
            cells.append(Cell(value, score, value.value - first.value, verdict))
    return Row(measure.title, about, measure.kind, measure.up, tuple(cells))


def _verdict(first: Estimate, other: Estimate, measure: _Measure) -> Verdict:
    # Two perfect scores may differ in the sixth digit: what does not show is no difference.
    if not shown(abs(other.value - first.value), BARE.get(measure.kind, measure.kind)).strip("0."):
        return "same"
    if other.lowest <= first.highest and first.lowest <= other.highest:
        return "noise"
    return "better" if (other.lowest > first.highest) == measure.up else "worse"


def _sets(record: Record) -> dict[str, SetSummary]:
    return {item.name: item for item in picks.ood_sets(record)}


def _known(record: Record) -> SetSummary | None:
    return next((item for item in record.sets if item.role == "test"), None)


def _contents_known(one: SetSummary, other: SetSummary) -> bool:
    # Inputs of another shape were prepared in another way: their content differs, though the files may be the same.
    return bool(one.content and other.content) and one.shape == other.shape


def _same(one: SetSummary, other: SetSummary) -> bool:
    """The same inputs and labels, where both records know them; else the same source and number of samples."""
    if _contents_known(one, other):
        return one.content == other.content
    return (one.source, one.count) == (other.source, other.count)


def _same_ood(one: tuple[Record, SetSummary], other: tuple[Record, SetSummary]) -> bool:
    """Of arrays, all sets are from one file, whose name says nothing of a set: its own name and size must do."""
    if all(_of_arrays(record) for record, _ in (one, other)):
        return one[1].count == other[1].count
    return _same(one[1], other[1])


def _of_arrays(record: Record) -> bool:
    return all(not item.content for item in picks.ood_sets(record)) and bool(
        (known := _known(record)) and known.content
    )


def _same_known(records: Records) -> list[bool]:
    """Per record, whether it was judged on the first one's in-distribution data."""
    found = [_known(record) for record in records.values()]
    first = found[0]
    return [item is first or bool(item and first and _same(first, item)) for item in found]


def _by_name(names: Sequence[str], values: Sequence[Record]) -> list[list[Part]]:
    """Which sets are taken for the same though nothing but their names tells."""
    lines: list[list[Part]] = []
    for name, record in zip(names[1:], values[1:], strict=True):
        pairs = [("the in-distribution data", _known(values[0]), _known(record))]
        pairs += [(key, twin, _sets(record).get(key)) for key, twin in _sets(values[0]).items()]
        unsure = [
            what
            for what, one, other in pairs
            if one and other and not _contents_known(one, other) and one.count == other.count
        ]
        if unsure:
            tail = f", taken as the same by name and size alone: {told(unsure)}. Their contents are not recorded."
            lines.append(["In ", Name(names[0]), " and ", Name(name), tail])
    return lines


def _shared(tables: Sequence[Mapping[str, object]]) -> list[str]:
    """Names that the first table shares with another, in its order."""
    return [name for name in tables[0] if any(name in other for other in tables[1:])]
