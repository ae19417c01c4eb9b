"""Several audits side by side, as one self-contained HTML page: what differs, and whether it is more than noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caveat.files import write_atomically
from caveat.records.record import Record
from caveat.report import assets
from caveat.report.differences import (
    Row,
    apart,
    checked,
    judged,
    known_rows,
    shared_sets,
    unknown_rows,
)
from caveat.report.shown import BARE, Kind

__all__ = ["VERDICTS", "render", "write"]

OWN = ("shared.js", "compare.js")
VERDICTS = {
    "better": "clearly better",
    "worse": "clearly worse",
    "noise": "intervals overlap",
    "same": "the same",
    "other data": "other data",
}
"""How a verdict is told."""
MARGIN = 0.08


@dataclass(frozen=True)
class _Mark:
    """An interval and its value, on a scale from 0 to 100 that a row's records share."""

    low: float
    width: float
    at: float
    line: int
    verdict: str


def render(records: Mapping[str, Record]) -> str:
    """Make the page that holds records against the first of them: no network, nothing beside itself.

    Every number is in a record, or a difference of two and marked `data-derived`. Two values differ clearly if their
    95 % intervals do not overlap. Only what the first record shares with another is compared: OOD sets of the same
    name and source, scores and calibrations of the same name. The page says what cannot be compared.

    Parameters
    ----------
    records
        Two to six records, each under the name the page shall call it by.

    Returns
    -------
    str
        The page, to be stored as UTF-8.

    Raises
    ------
    OptionError
        If there are fewer than two records or more than six.
    """
    checked(records)
    return assets.template("compare.html.j2", HELPERS).render(
        assets.inline(assets.read("page.css"), [assets.own_script(OWN)]),
        records=records,
        judged=judged(records),
        apart=apart(records),
        known=_by_metric(known_rows(records)),
        ood=[
            (name, _by_metric(picked), _by_metric(each))
            for name in shared_sets(records)
            for picked, each in [unknown_rows(records, name)]
        ],
        verdicts=VERDICTS,
    )


def write(records: Mapping[str, Record], path: str | Path) -> None:
    """Make the page and store it: under a temporary name first, then renamed.

    Parameters
    ----------
    records
        As for `render`.
    path
        The file to write; missing folders are made.

    Raises
    ------
    OptionError
        As `render`.
    CaveatError
        If the file cannot be written.
    """
    write_atomically(Path(path), render(records))


def _by_metric(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(metric, [row for row in rows if row.metric == metric]) for metric in dict.fromkeys(r.metric for r in rows)]


def _marks(row: Row) -> list[_Mark]:
    """The intervals of a row as marks; the scale runs from the lowest end to the highest, with a margin."""
    found = [
        (line, cell, cell.value.value, cell.value.low, cell.value.high)
        for line, cell in enumerate(row.cells)
        if cell.value and cell.value.low is not None and cell.value.high is not None
    ]
    low = min((start for *_, start, _ in found), default=0.0)
    span = max((end for *_, end in found), default=1.0) - low or 1.0

    def place(x: float) -> float:
        return round(100 * (MARGIN + (1 - 2 * MARGIN) * (x - low) / span), 2)

    return [
        _Mark(place(start), round(place(end) - place(start), 2), place(value), line, cell.verdict or "first")
        for line, cell, value, start, end in found
    ]


def _bare(kind: Kind) -> Kind:
    return BARE.get(kind, kind)


HELPERS: dict[str, Any] = {"bare": _bare, "marks": _marks}
"""What the template may call, beside what every template may."""
