"""Charts of the study of gradient uncertainty: the LASSO's path, importances, and where each metric's values lie."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from caveat.records.findings import Figure
from caveat.studies.kit import plots

__all__ = ["figures"]


def figures(first: Mapping[str, Any]) -> list[Figure]:
    """What `run` draws of the first CNN."""
    largest: dict[str, float] = {}
    for row in first["path"]:
        largest[row["column"]] = max(largest.get(row["column"], 0.0), abs(row["coefficient"]))
    shown = sorted(largest, key=lambda name: -largest[name])[:8]
    path = plots.lines(
        [row for row in first["path"] if row["column"] in shown], x="strength", y="coefficient", colour="column",
        log_x=True, description="Coefficients of the LASSO over the strength of its penalty",
    )  # fmt: skip
    shown_first = [
        Figure(
            title="The LASSO's path", spec=path,
            caption="First CNN, validation digits alone; the eight columns with the largest coefficients.",
        ),
        Figure(
            title="Importances of the meta NN's inputs", spec=_bars(first["importances"]),
            caption="By how much the log loss grows (nats) when the columns of a layer, or of a statistic, are "
            "shuffled together (permutation importance); all test sets, NN with 200 pictures of noise.",
        ),
    ]  # fmt: skip
    statistics = list(dict.fromkeys(row["statistic"] for row in first["strips"]))
    return shown_first + [
        Figure(
            title=f"{_axis(statistic)}, over all layers",
            spec=_strip([row for row in first["strips"] if row["statistic"] == statistic], statistic),
            caption="Distribution of the values in each set: darker = more. First CNN.",
        )
        for statistic in statistics
    ]  # fmt: skip


def _axis(statistic: str) -> str:
    return statistic if statistic in ("mean", "skewness") else f"log10 |{statistic}|"


def _bars(values: Mapping[str, float]) -> dict[str, Any]:
    rows = [{"columns": name, "growth": value} for name, value in values.items()]
    chart = alt.Chart(alt.Data(values=rows)).mark_bar(fill=plots.COLOURS[0]).encode(
        y=alt.Y("columns:N", sort=None, title=None),
        x=alt.X("growth:Q", title="growth of the log loss, nats"),
        tooltip=[alt.Tooltip("columns:N"), alt.Tooltip("growth:Q", format=".3~g")],
    )  # fmt: skip
    return plots.finish(chart, description="Permutation importances of layers and statistics")


def _strip(rows: Sequence[Mapping[str, Any]], statistic: str) -> dict[str, Any]:
    colours = alt.Scale(domain=["correct", "wrong", "OOD"], range=[plots.COLOURS[k] for k in (0, 2, 1)])
    values = [
        {k: row[k] for k in ("set", "from", "to", "share")}
        | {"kind": row["set"] if row["set"] in ("correct", "wrong") else "OOD"}
        for row in rows
    ]
    chart = alt.Chart(alt.Data(values=values)).mark_rect().encode(
        y=alt.Y("set:N", sort=None, title=None),
        x=alt.X("from:Q", title=_axis(statistic),
                scale=alt.Scale(zero=False, nice=False)),
        x2="to:Q",
        opacity=alt.Opacity("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.03, 1])),
        color=alt.Color("kind:N", title=None, scale=colours),
    )  # fmt: skip
    return plots.finish(chart, description=f"Spread of the {statistic} per set", height=220)
