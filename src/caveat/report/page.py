"""The page: one self-contained HTML file made from a record.

It refers to nothing outside itself: styles, scripts and pictures are inlined, and a content security policy of hashes
forbids the rest. The same record gives the same bytes.
"""

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from caveat.errors import DataError
from caveat.files import write_atomically
from caveat.records.record import Detection, Operating, Picture, Record, Score
from caveat.report import assets, bars, caveats, picks, verdict
from caveat.report.payload import embed, payload, pictures

__all__ = ["render", "write"]

VENDOR = ("vega.min.js", "vega-lite.min.js")
OWN = ("shown.js", "shared.js", "charts.js", "page.js")
LICENCE = "vendor/LICENSE-vega"
PICTURE_KINDS: dict[str, tuple[str, str]] = {
    "confident error": ("Most confident errors", "Wrong answers that the score trusts most: what a threshold lets by."),
    "uncertain correct": (
        "Least trusted correct answers",
        "Right answers that the score trusts least: what caution costs.",
    ),
    "accepted OOD": ("OOD inputs that pass as known", "Inputs of another kind that the score trusts most."),
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
        If a picture of the record is not base64, or a sweep's columns differ in length.
    """
    scripts = [*(assets.vendor(name) for name in VENDOR), assets.own_script(OWN, before=assets.interpreter())]
    kept = pictures(record)
    return assets.template("page.html.j2", HELPERS).render(
        assets.inline(assets.read("page.css"), scripts),
        record=record,
        licence=assets.read(LICENCE),
        data=Markup(embed(payload(record))),
        headline=verdict.headline(record),
        caveats=caveats.caveats(record),
        best=picks.best_score(record),
        leading=picks.leading_score(record),
        finder=picks.finder(record),
        helping=picks.helping_calibration(record),
        ood=picks.unknown_sets(record),
        ranking=_ranking(record),
        mistakes=sorted(record.selective, key=lambda item: item.aurc.value),
        worst=_worst(record),
        groups=_groups(kept),
        merits=_merits(record),
        guards=_guards(record),
        about_sets=verdict.conformal(record),
        families=list(dict.fromkeys(item.family for item in record.scores)),
        left_out=len(record.pictures) - len(kept),
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
        As `render`, or if the file cannot be written.
    """
    text = render(record)
    try:
        write_atomically(Path(path), text)
    except OSError as error:
        raise DataError(f"path: cannot write the report to {path}: {error.strerror}; choose another place") from None


def _png(picture: Picture) -> str:
    return _source(picture.png, f"{picture.set} {picture.index}")


def _source(png: str, place: object) -> str:
    """What an img shows; `place` is for the message."""
    try:
        b64decode(png, validate=True)
    except BadBase64:
        raise DataError(f"pictures: expected base64 of a PNG for {place}, got other text; audit again") from None
    return f"data:image/png;base64,{png}"


def _ranking(record: Record) -> list[tuple[int, Score]]:
    """The scores with their positions, best mean AUROC first; those without detections last."""
    mean = picks.mean_auroc(record)
    return sorted(enumerate(record.scores), key=lambda pair: -mean.get(pair[1].name, -1.0))


def _worst(record: Record) -> Detection | None:
    """The OOD set that passes most under the leading score."""
    score = picks.leading_score(record)
    found = [item for item in record.detections if item.score == score]
    return max(found, key=lambda item: item.fpr_at_95_tpr.value, default=None)


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


def _guards(record: Record) -> list[Operating]:
    """The previews of a guard, that of the leading score first."""
    score = picks.leading_score(record)
    return sorted(record.operating, key=lambda item: item.score != score)


def _in_order(record: Record, names: Iterable[str]) -> list[str]:
    """Names of sets in the record's order; those it does not describe last."""
    order = [item.name for item in record.sets]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


HELPERS: dict[str, Any] = {
    "detection": picks.detection,
    "guard_bar": bars.guard_bar,
    "in_order": _in_order,
    "keeps": picks.keeps,
    "png": _png,
    "scene_png": _source,
    "set_sizes": bars.set_sizes,
    "size_legend": bars.size_legend,
    "violin": bars.violin,
}
"""What the template may call, beside what every template may."""
