"""The page: one self-contained HTML file made from a record.

It refers to nothing outside itself: styles, scripts and pictures are inlined, and a content security policy of hashes
forbids the rest. The same record gives the same bytes.
"""

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from caveat.errors import DataError
from caveat.files import write_atomically
from caveat.records.record import Operating, Picture, Record, Score
from caveat.report import assets, bars, caveats, picks, promises, verdict
from caveat.report.payload import embed, payload, pictures

__all__ = ["render", "write"]

VENDOR = ("vega.min.js", "vega-lite.min.js")
OWN = ("shown.js", "shared.js", "charts.js", "page.js")
LICENCE = "vendor/LICENSE-vega"
PICTURE_KINDS: dict[str, tuple[str, str]] = {
    "confident error": (
        "Most confident errors",
        "Wrong predictions with the lowest scores: no threshold rejects them without rejecting most others.",
    ),
    "uncertain correct": (
        "Least trusted correct predictions",
        "Correct predictions with the highest scores: what a low threshold rejects first.",
    ),
    "accepted OOD": ("OOD inputs taken for in-distribution ones", "OOD inputs with the lowest scores."),
}


def render(record: Record) -> str:
    """Make the report: one HTML page that needs no network and nothing beside itself.

    Every number in it is in the record; what the page's script derives from those (a sum or a ratio) is marked
    `data-derived`. Names and texts of the record are escaped. The page stays under 3 MB for 40 scores and 8 OOD
    sets: curves are thinned, and pictures beyond 0.8 MB are left out, which the page says.

    Parameters
    ----------
    record
        What the audit found.

    Returns
    -------
    str
        The page, to be stored as UTF-8.

    Raises
    ------
    DataError
        If a picture of the record is not base64.
    """
    scripts = [*(assets.vendor(name) for name in VENDOR), assets.own_script(OWN, before=assets.interpreter())]
    shown, found = pictures(record), picks.pick(record)
    return assets.template("page.html.j2", HELPERS).render(
        assets.inline(assets.read("page.css"), scripts),
        record=record,
        licence=assets.read(LICENCE),
        picks=found,
        data=Markup(embed(payload(found))),
        bottom_line=verdict.bottom_line(found),
        next_step=verdict.next_step(found),
        headline=verdict.headline(found),
        caveats=caveats.caveats(found),
        distinct=[item for item in record.calibrations if item not in found.same],
        ood=found.ood,
        ranking=_ranking(found),
        mistakes=sorted(record.selective, key=lambda item: item.aurc.value),
        groups=_groups(shown),
        merits=_merits(record),
        guards=_guards(found),
        about_sets=verdict.conformal(found),
        families=list(dict.fromkeys(item.family for item in record.scores)),
        left_out=len(record.pictures) - len(shown),
    )


def write(record: Record, path: str | Path) -> None:
    """Make the report and store it: under a temporary name first, then renamed.

    Parameters
    ----------
    record
        What the audit found.
    path
        The file to write; missing folders are made.

    Raises
    ------
    DataError
        As `render`.
    CaveatError
        If the file cannot be written.
    """
    write_atomically(Path(path), render(record))


def _png(picture: Picture) -> str:
    return _source(picture.png, f"{picture.set} {picture.index}")


def _source(png: str, place: object) -> str:
    """What an img shows; `place` is for the message."""
    try:
        b64decode(png, validate=True)
    except BadBase64:
        raise DataError(f"pictures: expected base64 of a PNG for {place}, got other text; audit again") from None
    return f"data:image/png;base64,{png}"


def _ranking(found: picks.Picks) -> list[tuple[int, Score]]:
    """The scores with their positions: the leading one, then by mean AUROC; those without one last."""

    def place(pair: tuple[int, Score]) -> tuple[bool, float]:
        return pair[1].name != found.leading, -found.means.get(pair[1].name, -1.0)

    return sorted(enumerate(found.record.scores), key=place)


def _groups(kept: list[Picture]) -> list[tuple[str, str, list[tuple[str, str, list[Picture]]]]]:
    """Pictures by kind, then by score and set: `(title, explanation, [(set, score, pictures), ...])`."""
    groups: list[tuple[str, str, list[tuple[str, str, list[Picture]]]]] = []
    for kind, (title, text) in PICTURE_KINDS.items():
        rows: dict[tuple[str, str], list[Picture]] = {}
        for item in kept:
            if item.kind == kind:
                rows.setdefault((item.score, item.set), []).append(item)
        scores = list(dict.fromkeys(score for score, _ in rows))
        ordered = sorted(rows, key=lambda row: scores.index(row[0]))
        if rows:
            groups.append((title, text, [(place, score, rows[score, place]) for score, place in ordered]))
    return groups


def _merits(record: Record) -> list[tuple[str, float]]:
    """The figures of merit behind the choice of a score, the best first."""
    return sorted(record.choice.figures.items(), key=lambda pair: -pair[1]) if record.choice else []


def _guards(found: picks.Picks) -> list[Operating]:
    """The previews of a guard, that of the leading score first."""
    return sorted(found.record.operating, key=lambda item: item.score != found.leading)


def _shade(count: int, row: Sequence[int]) -> str:
    """The class of style of a cell of the confusion matrix: its share of the row, in tenths."""
    return f"g{round(10 * count / max(1, sum(row)))}" if count else ""


def _in_order(record: Record, names: Iterable[str]) -> list[str]:
    """Names of sets in the record's order; those it does not describe last."""
    order = [item.name for item in record.sets]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


HELPERS: dict[str, Any] = {
    "guard_bar": bars.guard_bar,
    "in_order": _in_order,
    "keeps": promises.keeps,
    "png": _png,
    "scene_png": _source,
    "set_sizes": bars.set_sizes,
    "shade": _shade,
    "size_legend": bars.size_legend,
    "violin": bars.violin,
}
"""What the template may call, beside what every template may."""
