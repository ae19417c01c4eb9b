"""The studies' charts as Vega-Lite specifications, in the report's colours, their rows within."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from caveat.report import figures

__all__ = ["COLOURS", "band", "finish", "lines"]

Rows = Sequence[Mapping[str, float | str | None]]
COLOURS = ("var(--accent)", "var(--warn)", "var(--muted)", "#2a9d8f", "#8a63d2", "#c2185b", "#6d4c41", "#5c7a29")
"""One after the other for the values of a chart's colour field."""
INK, MUTED = "var(--ink)", "var(--muted)"


def lines(
    rows: Rows, *, x: str, y: str, colour: str, description: str, log_x: bool = False, y_format: str = ".3~g"
) -> dict[str, Any]:
    """One line for each value of `colour`; `x` and `y` name columns of `rows` and title the axes."""
    scale = alt.Scale(type="log") if log_x else alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
        x=alt.X(f"{_name(x)}:Q", title=x, scale=scale),
        y=alt.Y(f"{_name(y)}:Q", title=y, scale=alt.Scale(zero=False), axis=alt.Axis(format=y_format)),
        color=_colour(rows, colour),
        tooltip=[
            alt.Tooltip(f"{_name(colour)}:N", title=colour),
            alt.Tooltip(f"{_name(x)}:Q", title=x, format=".4~g"),
            alt.Tooltip(f"{_name(y)}:Q", title=y, format=".4~g"),
        ],
    )
    return finish(alt.layer(base.mark_line(strokeWidth=2), base.mark_circle(size=45)), description=description)


def band(
    rows: Rows, *, x: str, y: str, low: str, high: str, colour: str, description: str, points: Rows = ()
) -> dict[str, Any]:
    """A line with its band for each value of `colour`, and points (columns `x` and `y`) behind them."""
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    across = alt.X(f"{_name(x)}:Q", title=x, scale=alt.Scale(zero=False, nice=False))
    shade = base.mark_area(opacity=0.25).encode(
        x=across, y=alt.Y(f"{_name(low)}:Q", title=y), y2=f"{_name(high)}:Q", color=_colour(rows, colour)
    )
    middle = base.mark_line(strokeWidth=2).encode(x=across, y=f"{_name(y)}:Q", color=_colour(rows, colour))
    layers: list[alt.Chart] = [shade, middle]
    if points:
        dots = alt.Chart(alt.Data(values=[dict(row) for row in points])).mark_circle(size=14, fill=MUTED, opacity=0.5)
        layers.insert(0, dots.encode(x=f"{_name(x)}:Q", y=f"{_name(y)}:Q"))
    return finish(alt.layer(*layers), description=description)


def finish(chart: Any, *, description: str, height: int = 260) -> dict[str, Any]:
    """A chart of altair as the report's are, with its legend below."""
    legend = chart.configure_legend(labelColor=INK, titleColor=MUTED, orient="bottom", columns=4)
    return figures.finish(legend, height=height, description=description)


def _colour(rows: Rows, field: str) -> alt.Color:
    found = list(dict.fromkeys(str(row[field]) for row in rows))
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(found))]
    return alt.Color(f"{_name(field)}:N", title=None, scale=alt.Scale(domain=found, range=colours))


def _name(field: str) -> str:
    return field.replace(".", "\\.").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
