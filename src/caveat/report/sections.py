"""The page of a task that is not classification: an overview, and sections of tables and charts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
from markupsafe import Markup

from caveat.records.record import Detection
from caveat.records.task import Kept, Preview, TaskRecord
from caveat.report import assets
from caveat.report.figures import ACCENT, INK, MUTED, WARN, Spec, finish
from caveat.report.payload import embed
from caveat.report.shown import Name, Part, Value, between

__all__ = [
    "Chart",
    "Overview",
    "Row",
    "Section",
    "Table",
    "detections",
    "kept",
    "number",
    "operating",
    "parts",
    "render",
]

VENDOR = ("vega.min.js", "vega-lite.min.js")
OWN = ("shared.js", "study.js")
Cell = Sequence[Part] | Part


@dataclass(frozen=True)
class Row:
    """A line of a table; `name` stands in its first column."""

    name: Part
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """A table; the first of its columns holds names."""

    columns: Sequence[str]
    rows: Sequence[Row]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification with its data."""

    title: str
    spec: Spec
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    text: Sequence[Part]
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Overview:
    """What stands at the top: what to use the network for, and the figures that say so."""

    verdict: Sequence[Part]
    next_step: Sequence[Part]
    tiles: Sequence[tuple[str, Part, Sequence[Part]]]
    """Label, value, and its interval or whatever stands beside it."""
    caveats: dict[str, list[Sequence[Part]]] = field(default_factory=dict[str, list[Sequence[Part]]])
    """Sentences under `trust`, `care` and `no`."""


def render(record: TaskRecord, overview: Overview, sections: Sequence[Section]) -> str:
    """Make the page: it needs no network and nothing beside itself; all texts are escaped."""
    return assets.template("sections.html.j2", {}).render(parts(sections), record=record, overview=overview)


def parts(sections: Sequence[Section]) -> dict[str, Any]:
    """What a template with sections needs for them: style, scripts, charts and their data."""
    figures: list[Any] = [chart.spec for section in sections for chart in section.charts]
    scripts = [
        *((assets.vendor(name) for name in VENDOR) if figures else ()),
        assets.own_script(OWN, before=assets.interpreter() if figures else ""),
    ]
    starts: dict[str, int] = {}
    for section in sections:
        starts[section.key] = sum(len(other.charts) for other in sections[: sections.index(section)])
    return assets.inline(assets.read("page.css"), scripts) | {
        "sections": sections,
        "starts": starts,
        "data": Markup(embed({"figures": figures})),
        "licence": assets.read("vendor/LICENSE-vega") if figures else "",
    }


def number(value: float | None, kind: Any = "score") -> Sequence[Part]:
    """A number, or a dash where there is none."""
    return ["\N{EN DASH}"] if value is None else [Value(value, kind)]


def detections(record: TaskRecord, rows: Sequence[Detection]) -> Section:
    """How well each score tells each OOD set."""
    made = [item.name for item in record.sets if item.generated]
    table = Table(
        ["Score", "OOD set", "AUROC", "AUPR-Out", "FPR at 95 % TPR"],
        [
            Row(
                Name(item.score),
                [
                    [Name(item.ood), " (generated)" if item.ood in made else ""],
                    [Value(item.auroc.value), " ", *between(item.auroc)],
                    [Value(item.aupr_out.value), " ", *between(item.aupr_out)],
                    [Value(item.fpr_at_95_tpr.value), " ", *between(item.fpr_at_95_tpr)],
                ],
            )
            for item in sorted(rows, key=lambda item: (item.ood, -item.auroc.value))
        ],
    )
    text = ["How well each score tells OOD inputs from in-distribution ones, whatever the threshold; 50 % is chance."]
    if not rows:
        text = ["No OOD set was given: nothing is known of how the network answers what it has never seen."]
    return Section("ood", "Out-of-distribution (OOD) inputs", text, [table] if rows else [])


def kept(found: Sequence[Kept], error: str, *, percent: bool = False) -> Spec:
    """The error of the most certain, over their share, for every score."""
    rows = [
        {"score": item.score, "x": x, "y": y}
        for item in found for x, y in zip(item.curve.x, item.curve.y, strict=True)
    ]  # fmt: skip
    axis = alt.Axis(format="%") if percent else alt.Axis()
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2).encode(
        x=alt.X("x:Q", title="Share of samples accepted", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        y=alt.Y("y:Q", title=error, scale=alt.Scale(zero=False), axis=axis),
        color=alt.Color(
            "score:N", title=None, legend=alt.Legend(orient="bottom", labelColor=INK),
            scale=alt.Scale(domain=[item.score for item in found], range=[ACCENT, WARN, MUTED, INK]),
        ),
        tooltip=[
            alt.Tooltip("score:N"), alt.Tooltip("x:Q", format=".1%"),
            alt.Tooltip("y:Q", format=".2%" if percent else ".4~g"),
        ],
    )  # fmt: skip
    return finish(alt.layer(chart), height=230, description=f"{error} over the share of samples accepted")


def operating(previews: Sequence[Preview], *, error: str, kind: Any, coverage: str) -> Section:
    """What the previewed guard would do with every set.

    `error` names the error and `kind` says how it is written; `coverage` names what its promise is of.
    """
    text: list[Part] = []
    tables: list[Table] = []
    for item in previews:
        text += [
            "A guard with the score ", Name(item.score), " at the threshold ", Value(item.threshold, "score"),
            ", set so that it accepts at least ", Value(item.keep), " of in-distribution inputs, accepts of each set: ",
        ]  # fmt: skip
        tables.append(
            Table(
                ["Set", "Accepted"],
                [
                    Row(Name(name), [[Value(share.value), " ", *between(share)]])
                    for name, share in item.accepted.items()
                ],
            )
        )
        cells: list[Cell] = [[Value(item.error, kind)], [Value(item.error_of_all, kind)]]
        columns = ["", f"{error}, accepted", f"{error}, all"]
        if item.coverage is not None:
            cells.append([Value(item.coverage.value), " ", *between(item.coverage)])
            columns.append(coverage)
        tables.append(Table(columns, [Row("test", cells)]))
    if not previews:
        text = ["No guard can be made of this network and data; the notes say why."]
    return Section("guard", "Guard", text, tables)
