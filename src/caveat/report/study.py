"""The page of a study: published figures beside ours, in one self-contained HTML file."""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from pathlib import Path
from typing import Any

from markupsafe import Markup

from caveat.errors import DataError
from caveat.files import write_atomically
from caveat.records.findings import Cell, Findings, Table
from caveat.report import assets
from caveat.report.payload import embed
from caveat.report.shown import MINUS

__all__ = ["markdown", "render", "write"]

VENDOR = ("vega.min.js", "vega-lite.min.js")
OWN = ("shared.js", "study.js")
VERDICTS = {
    "confirmed": "confirmed",
    "partly": "partly confirmed",
    "refuted": "not confirmed",
    "untested": "not tested",
}


def render(findings: Findings) -> str:
    """Make the page: it needs no network and nothing beside itself; all texts are escaped.

    Raises
    ------
    DataError
        If a picture is not base64.
    """
    for shot in findings.shots:
        try:
            b64decode(shot.png, validate=True)
        except BadBase64:
            raise DataError(f"findings: the picture {shot.title!r} is not base64") from None
    figures: list[Any] = [figure.spec for figure in findings.figures]
    scripts = [
        *((assets.vendor(name) for name in VENDOR) if figures else ()),
        assets.own_script(OWN, before=assets.interpreter() if figures else ""),
    ]
    return assets.template("study.html.j2", HELPERS).render(
        assets.inline(assets.read("page.css"), scripts),
        findings=findings,
        data=Markup(embed({"figures": figures})),
        verdicts=VERDICTS,
        published=any(cell.published for table in findings.tables for row in table.rows for cell in row.cells),
        licence=assets.read("vendor/LICENSE-vega") if figures else "",
    )


def write(findings: Findings, path: str | Path) -> None:
    """Make the page and store it: under a temporary name first, then renamed."""
    write_atomically(Path(path), render(findings))


def markdown(findings: Findings) -> str:
    """The claims and tables as Markdown, for a gallery or a terminal."""
    parts = [f"# {findings.title}", f"{findings.source}", f"Scale `{findings.scale}`, seeds {findings.seeds}."]
    if findings.reduced:
        parts.append("What differs from the published experiment:\n\n" + "\n".join(f"- {x}" for x in findings.reduced))
    if findings.claims:
        rows = [f"| {_text(c.claim)} | {VERDICTS[c.verdict]} | {_text(c.found)} |" for c in findings.claims]
        parts.append("\n".join(["| claim | verdict | our result |", "|---|---|---|", *rows]))
    parts += [_table(table) for table in findings.tables]
    parts += [f"- {note}" for note in findings.notes]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    head = "| " + " | ".join([table.first or " ", *map(_text, table.columns)]) + " |"
    rule = "|" + "---|" * (len(table.columns) + 1)
    rows = [
        "| " + " | ".join([_text(row.label), *(_text(_plain(cell, table.digits)) for cell in row.cells)]) + " |"
        for row in table.rows
    ]
    note = [f"\n{table.note}"] if table.note else []
    return "\n".join([f"## {table.title}\n", head, rule, *rows, *note])


def _text(text: str) -> str:
    """A text that may stand in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(cell: Cell, digits: int) -> str:
    published = f" ({cell.published})" if cell.published else ""
    return f"{ours(cell, digits)}{published}" or "-"


def ours(cell: Cell, digits: int) -> str:
    """Our figure as it is shown: mean and spread.

    >>> ours(Cell(value=0.5, std=0.25), 2)
    '0.50 ± 0.25'
    """
    if cell.text:
        return cell.text
    if cell.value is None:
        return ""
    spread = "" if cell.std is None else f" ± {cell.std:.{digits}f}"
    return re.sub(r"^-", MINUS, f"{cell.value:.{digits}f}{spread}")


HELPERS: dict[str, Any] = {"ours": ours}
