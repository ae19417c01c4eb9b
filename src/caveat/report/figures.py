"""The charts, as Vega-Lite specs. A spec holds no data: the page's script puts the rows in by the data set's name.

Colours are the page's own CSS variables, so that light, dark and print need no second spec.
"""

from collections.abc import Callable
from typing import Any

import altair as alt

__all__ = [
    "FIGURES",
    "attacked",
    "finish",
    "gain",
    "histogram",
    "precision_recall",
    "quantiles",
    "reliability",
    "risk_coverage",
    "roc",
    "uncertainty",
]

Spec = dict[str, Any]
Chart = alt.Chart | alt.LayerChart | alt.FacetChart  # the last is what alt.layer says it gives

ACCENT, WARN, MUTED = "var(--accent)", "var(--warn)", "var(--muted)"
INK, LINE = "var(--ink)", "var(--line)"
SHARE = "%"
FINE = ".1%"
UNIT = alt.Scale(domain=[0, 1])
TICKS = [0, 0.25, 0.5, 0.75, 1]


def _data(name: str) -> alt.NamedData:
    return alt.NamedData(name=name)


def _share(field: str, title: str) -> alt.X:
    return alt.X(field, type="quantitative", title=title, scale=UNIT, axis=alt.Axis(format=SHARE, values=TICKS))


def _share_up(field: str, title: str) -> alt.Y:
    return alt.Y(field, type="quantitative", title=title, scale=UNIT, axis=alt.Axis(format=SHARE, values=TICKS))


def _tip(field: str, title: str, form: str = FINE) -> alt.Tooltip:
    return alt.Tooltip(field, type="quantitative", title=title, format=form)


def _diagonal() -> alt.Chart:
    ends = alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])
    line = alt.Chart(ends).mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1)
    return line.encode(x="x:Q", y="y:Q")


def finish(chart: Chart, *, height: int, description: str) -> Spec:
    """A chart in the page's colours and fonts, as wide as its place."""
    finished = (
        chart.properties(width="container", height=height, description=description)
        .configure(
            background="transparent",
            font="system-ui, sans-serif",
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure_view(stroke=None)
        .configure_axis(
            domainColor=LINE,
            gridColor=LINE,
            tickColor=LINE,
            labelColor=MUTED,
            titleColor=INK,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
            titlePadding=8,
        )
    )
    return finished.to_dict()


def reliability(
    data: alt.Data | None = None, *, of: str = "Confidence", rate: str = "Accuracy", part: str = "Share of inputs"
) -> Spec:
    """Accuracy over confidence per bin. On the diagonal = calibrated; below it = over-confident.

    The data, or the data set `bins` that the page fills in: rows `confidence`, `accuracy`, `share`, all in [0, 1], of
    which `of`, `rate` and `part` are the titles.
    """
    bins = alt.Chart(_data("bins") if data is None else data)
    x = _share("confidence", of)
    tips = [_tip("confidence", of), _tip("accuracy", rate), _tip("share", part)]
    # The gap is drawn from the point to the diagonal: its length is the bin's error.
    weight = alt.Size("share:Q", legend=None, scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0.8, 9]))
    gap = bins.mark_rule(stroke=WARN, opacity=0.6).encode(x=x, y="confidence:Q", y2="accuracy:Q", size=weight)
    size = alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[20, 360]))
    points = bins.mark_circle(fill=ACCENT, opacity=0.9).encode(
        x=x, y=_share_up("accuracy", rate), size=size, tooltip=tips
    )
    # The width of a gap and the area of a point are scales of their own.
    chart = alt.layer(_diagonal(), gap, points).resolve_scale(size="independent")
    return finish(chart, height=210, description=f"Reliability diagram: {rate.lower()} over {of.lower()}")


def histogram() -> Spec:
    """How the score is distributed over correct predictions, wrong predictions and OOD inputs.

    Data sets `bins`: rows `edge`, `share` (of its group), `group`; `threshold`: one row `at`.
    """
    colour = alt.Color(
        "group:N",
        legend=None,
        scale=alt.Scale(domain=["correct", "wrong", "OOD"], range=[ACCENT, MUTED, WARN]),
    )
    # Steps drawn as an area: overlapping bars of three groups cannot be told apart.
    area = (
        alt.Chart(_data("bins"))
        .mark_area(interpolate="step-after", fillOpacity=0.18, line={"strokeWidth": 1.5})
        .encode(
            x=alt.X(
                "edge:Q",
                title="Score (higher = less trustworthy)",
                scale=alt.Scale(zero=False, nice=False),
                axis=alt.Axis(tickCount=7),
            ),
            y=alt.Y("share:Q", title="Share of the group", stack=None, axis=alt.Axis(format=SHARE, tickCount=4)),
            color=colour,
            tooltip=[
                alt.Tooltip("group:N", title="Group"),
                _tip("edge", "From", ".4~g"),
                _tip("share", "Share"),
            ],
        )
    )
    cut = (
        alt.Chart(_data("threshold"))
        .mark_rule(stroke=INK, strokeDash=[3, 3])
        .encode(x="at:Q", tooltip=[_tip("at", "Threshold", ".4~g")])
    )
    return finish(alt.layer(area, cut), height=230, description="Histogram of the score by group")


def quantiles() -> Spec:
    """Where the middle 90 % (thin), the middle half (thick) and the median of a score lie, per set.

    Data set `ranges`: rows `set`, `role`, `q5`, `q25`, `q50`, `q75`, `q95`.
    """
    base = alt.Chart(_data("ranges")).encode(
        y=alt.Y("set:N", sort=None, title=None, axis=alt.Axis(labelLimit=110, labelColor=INK, grid=False)),
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=["test", "train", "ood", "unlabelled"], range=[ACCENT, MUTED, WARN, INK]),
        ),
        tooltip=[
            alt.Tooltip("set:N", title="Set"),
            *(_tip(f"q{q}", "median" if q == 50 else f"{q} %", ".4~g") for q in (5, 25, 50, 75, 95)),
        ],
    )
    title = "Score (higher = less trustworthy)"
    thin = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("q5:Q", title=title, scale=alt.Scale(zero=False)), x2="q95:Q")
    thick = base.mark_bar(height=9, cornerRadius=2, opacity=0.55).encode(x=alt.X("q25:Q", title=title), x2="q75:Q")
    middle = base.mark_tick(thickness=2.5, size=17).encode(x=alt.X("q50:Q", title=title))
    chart = alt.layer(thin, thick, middle)
    spec = finish(chart, height=0, description="Spread of the score per set")
    spec["height"] = {"step": 26}
    return spec


def roc() -> Spec:
    """OOD inputs rejected over in-distribution inputs rejected, for every threshold. Towards the upper left = better.

    Data set `curve`: rows `x`, `y`.
    """
    line = alt.Chart(_data("curve")).mark_line(stroke=ACCENT, strokeWidth=2, interpolate="linear")
    curve = line.encode(
        x=_share("x", "In-distribution inputs rejected"),
        y=_share_up("y", "OOD inputs rejected"),
        order=alt.Order("i:Q"),
    )
    spots = _spots([_tip("x", "In-distribution inputs rejected"), _tip("y", "OOD inputs rejected")])
    at = alt.Chart(alt.Data(values=[{"x": 0.05}])).mark_rule(stroke=MUTED, strokeDash=[2, 3]).encode(x="x:Q")
    return finish(alt.layer(_diagonal(), at, curve, spots), height=230, description="ROC curve")


def _spots(tips: list[alt.Tooltip]) -> alt.Chart:
    # Invisible until pointed at: what the tooltip hangs on.
    spots = alt.Chart(_data("curve")).mark_circle(size=90, opacity=0)
    return spots.encode(x="x:Q", y="y:Q", tooltip=tips)


def precision_recall() -> Spec:
    """Precision over recall of the OOD inputs. Towards the upper right = better; the dashed line is chance.

    Data sets `curve`: rows `x` (recall), `y` (precision); `chance`: one row `y`.
    """
    line = alt.Chart(_data("curve")).mark_line(stroke=ACCENT, strokeWidth=2)
    curve = line.encode(
        x=_share("x", "Recall of the OOD inputs"),
        y=_share_up("y", "Precision"),
        order=alt.Order("i:Q"),
    )
    spots = _spots([_tip("x", "Recall"), _tip("y", "Precision")])
    chance = alt.Chart(_data("chance")).mark_rule(stroke=MUTED, strokeDash=[4, 4]).encode(y="y:Q")
    return finish(alt.layer(chance, curve, spots), height=230, description="Precision and recall curve")


def risk_coverage() -> Spec:
    """Error among the accepted predictions over the share accepted. Lower = better; the ideal order is dashed.

    Data set `curves`: rows `score`, `x`, `y`, `role` (`picked`, `other` or `ideal`), `i`.
    """
    y = alt.Y("y:Q", title="Error among those accepted", axis=alt.Axis(format=FINE, tickCount=5))
    base = alt.Chart(_data("curves")).encode(
        x=_share("x", "Share of in-distribution inputs accepted"), y=y, detail="score:N", order=alt.Order("i:Q")
    )
    other = base.transform_filter("datum.role == 'other'").mark_line(stroke=MUTED, strokeWidth=1, opacity=0.35)
    ideal = base.transform_filter("datum.role == 'ideal'").mark_line(stroke=MUTED, strokeWidth=1.5, strokeDash=[4, 4])
    picked = base.transform_filter("datum.role == 'picked'").mark_line(stroke=ACCENT, strokeWidth=2.5)
    tips = [alt.Tooltip("score:N", title="Score"), _tip("x", "Accepted"), _tip("y", "Error", ".2%")]
    spots = base.transform_filter("datum.role == 'picked'").mark_circle(size=90, opacity=0).encode(tooltip=tips)
    return finish(alt.layer(other, ideal, picked, spots), height=260, description="Risk-coverage curves")


def uncertainty() -> Spec:
    """Aleatoric and epistemic uncertainty per set, one on the other: total length = predictive entropy.

    Data set `parts`: rows `set`, `part` (`aleatoric` or `epistemic`), `value` in nats.
    """
    bars = (
        alt.Chart(_data("parts"))
        .mark_bar(height=15)
        .encode(
            y=alt.Y("set:N", sort=None, title=None, axis=alt.Axis(labelLimit=110, labelColor=INK, grid=False)),
            x=alt.X("value:Q", title="Entropy in nats"),
            color=alt.Color(
                "part:N", legend=None, scale=alt.Scale(domain=["aleatoric", "epistemic"], range=[MUTED, WARN])
            ),
            order=alt.Order("part:N"),
            tooltip=[
                alt.Tooltip("set:N", title="Set"),
                alt.Tooltip("part:N", title="Part"),
                _tip("value", "Nats", ".4~g"),
            ],
        )
    )
    spec = finish(alt.layer(bars), height=0, description="Aleatoric and epistemic uncertainty per set")
    spec["height"] = {"step": 26}
    return spec


def gain() -> Spec:
    """A figure of merit over the number of draws, per OOD set.

    Data set `curves`: rows `draws`, `value`, `set`, `label` (the set's name on the last row of each line).
    """
    base = alt.Chart(_data("curves")).encode(
        x=alt.X("draws:Q", title="Samples", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="d")),
        y=alt.Y("value:Q", title="AUROC", scale=alt.Scale(zero=False), axis=alt.Axis(format=FINE, tickCount=5)),
        detail="set:N",
        tooltip=[
            alt.Tooltip("set:N", title="Set"),
            _tip("draws", "Samples", "d"),
            _tip("value", "AUROC"),
        ],
    )
    names = base.mark_text(align="right", dx=-4, dy=-9, fontSize=11, fill=INK).encode(text="label:N")
    chart = alt.layer(base.mark_line(stroke=ACCENT, strokeWidth=2), base.mark_circle(fill=ACCENT, size=50), names)
    return finish(chart, height=230, description="AUROC by number of draws")


def attacked() -> Spec:
    """Accuracy under attack over the radius; higher is better.

    Data set `radii`: rows `radius`, `accuracy`, `low`, `high`, `verified` (null where nothing is certified).
    """
    base = alt.Chart(_data("radii")).encode(x=alt.X("radius:Q", title="Radius", axis=alt.Axis(tickCount=6)))
    band = base.mark_area(fill=ACCENT, fillOpacity=0.15).encode(
        y=alt.Y("low:Q", title="Accuracy", scale=UNIT, axis=alt.Axis(format=SHARE, values=TICKS)), y2="high:Q"
    )
    line = base.mark_line(stroke=ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(fill=ACCENT, size=50)).encode(
        y=_share_up("accuracy", "Accuracy"), tooltip=[_tip("radius", "Radius", ".4~g"), _tip("accuracy", "Accuracy")]
    )
    sure = base.mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=2).encode(
        y=_share_up("verified", "Accuracy"), tooltip=[_tip("radius", "Radius", ".4~g"), _tip("verified", "Certified")]
    )
    return finish(alt.layer(band, line, sure), height=230, description="Accuracy under attack by radius")


FIGURES: dict[str, Callable[[], Spec]] = {
    "attacked": attacked,
    "uncertainty": uncertainty,
    "gain": gain,
    "histogram": histogram,
    "precision_recall": precision_recall,
    "quantiles": quantiles,
    "reliability": reliability,
    "risk_coverage": risk_coverage,
    "roc": roc,
}
