"""The page of a regression network's audit."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from caveat.files import write_atomically
from caveat.records.record import Curve
from caveat.records.regression import Intervals, RegressionRecord
from caveat.report import sections
from caveat.report.figures import ACCENT, MUTED, WARN, Spec, finish
from caveat.report.sections import Chart, Overview, Row, Section, Table, number
from caveat.report.shown import Name, Part, Value, between

__all__ = ["bottom_line", "render", "write"]


def render(record: RegressionRecord) -> str:
    """Make the report: one HTML page that needs no network and nothing beside itself."""
    parts = [
        _errors(record), _calibration(record), _intervals(record), _uncertainty(record),
        sections.detections(record, record.detections),
        sections.operating(
            record.operating, error="RMSE", kind="score", coverage="Its intervals hold the label"
        ),
    ]  # fmt: skip
    return sections.render(record, _overview(record), parts)


def write(record: RegressionRecord, path: str | Path) -> None:
    """Make the report and store it: under a temporary name first, then renamed."""
    write_atomically(Path(path), render(record))


def best(record: RegressionRecord) -> Intervals | None:
    """The narrowest of the intervals whose coverage is promised and which are finite."""
    promised = [item for item in record.intervals if item.promised and not item.unbounded]
    return min(promised, key=lambda item: item.score, default=None)


def bottom_line(record: RegressionRecord) -> list[Part]:
    """The verdict in two sentences."""
    found: list[Part] = [
        "The predictions are off by ", Value(record.rmse.value, "score"),
        " (RMSE); always predicting the mean would be off by ", Value(record.label_std, "score"), ". ",
    ]  # fmt: skip
    own = next((item for item in record.intervals if item.name == "predicted"), None)
    if own is not None:
        below = own.coverage.highest < 1 - own.error
        above = own.coverage.lowest > 1 - own.error
        word = "too narrow" if below else "wider than needed" if above else "right, as far as the samples tell"
        found += [
            "The network's own ", Value(1 - own.error), " intervals hold ", Value(own.coverage.value),
            f" of the labels: they are {word}. ",
        ]  # fmt: skip
    chosen = best(record)
    if chosen is not None:
        found += [
            "Conformal intervals (", Name(chosen.name), ") hold ", Value(chosen.coverage.value), " at a mean width of ",
            Value(chosen.width, "score"), ".",
        ]  # fmt: skip
    return found


def _overview(record: RegressionRecord) -> Overview:
    tiles: list[tuple[str, Part, Sequence[Part]]] = [
        ("RMSE", Value(record.rmse.value, "score"), between(record.rmse, "score")),
        ("R²", Value(record.r2, "plain"), ["1 is perfect, 0 the mean"]),
    ]
    chosen = best(record)
    if chosen is not None:
        tiles.append((f"Coverage, {chosen.name}", Value(chosen.coverage.value), between(chosen.coverage)))
        tiles.append(("Width of these intervals", Value(chosen.width, "score"), ["in the labels' units"]))
    step: list[Part] = [
        "put a guard in front of it: ", Name("caveat guard fit"), " with the folder of this audit, or ",
        Name("RegressionGuard.fit"), " in Python.",
    ]  # fmt: skip
    if record.r2 < 0:
        step = ["mend what the warnings name, then audit again."]
    elif not record.operating and not record.distributions:
        step = [
            "train an ensemble (",
            Name("caveat train --members 5"),
            "), so that the network can tell what it does not know.",
        ]
    return Overview(bottom_line(record), step, tiles, _caveats(record))


def _caveats(record: RegressionRecord) -> dict[str, list[Sequence[Part]]]:
    found: dict[str, list[Sequence[Part]]] = {"trust": [], "care": [], "no": []}
    chosen = best(record)
    if chosen is not None and chosen.coverage.highest >= 1 - chosen.error:
        found["trust"].append(
            [Name(chosen.name), " intervals: they hold the label of a new in-distribution input with a probability of "
             "at least ", Value(1 - chosen.error), "."]
        )  # fmt: skip
    own = next((item for item in record.intervals if item.name == "predicted"), None)
    if own is not None and own.coverage.highest < 1 - own.error:
        found["no"].append(
            ["The network's own intervals: they hold ", Value(own.coverage.value), " of the labels where ",
             Value(1 - own.error), " is meant."]
        )  # fmt: skip
    if record.r2 < 0:
        found["no"].append(["The predictions: the mean of the labels is closer."])
    elif record.r2 < 0.5:
        found["care"].append(["The predictions: they explain ", Value(record.r2), " of the labels' variance."])
    leading = record.operating[0].score if record.operating else None
    for item in record.detections:
        if item.score == leading:
            level = "trust" if item.auroc.lowest > 0.9 else "care" if item.auroc.lowest > 0.7 else "no"
            found[level].append(
                [Name(item.score), " to notice inputs like those of ", Name(item.ood), " (AUROC ",
                 Value(item.auroc.value), ")."]
            )  # fmt: skip
    if not record.detections:
        found["care"].append(["Inputs unlike those of the test set: no OOD set was given."])
    return found


def _errors(record: RegressionRecord) -> Section:
    table = Table(
        ["", "RMSE", "MAE", "R²", "Mean of the labels", "Their standard deviation"],
        [Row("test", [
            [Value(record.rmse.value, "score"), " ", *between(record.rmse, "score")],
            [Value(record.mae.value, "score"), " ", *between(record.mae, "score")],
            number(record.r2, "plain"), number(record.label_mean), number(record.label_std),
        ])],
    )  # fmt: skip
    text = ["How far predictions are from the labels, in the labels' units. In brackets: 95 % intervals."]
    return Section("errors", "Errors", text, [table], [Chart("Predictions and labels", _scatter(record), _SCATTER)])


_SCATTER = (
    "Each point is a test sample with a conformal interval; on the dashed line the prediction is the label. Samples "
    "whose interval misses the label are orange."
)


def _scatter(record: RegressionRecord) -> Spec:
    shown = record.answered
    rows = [
        {"prediction": p, "label": y, "lower": low, "upper": high, "inside": "inside" if low <= y <= high else "missed"}
        for p, y, low, high in zip(shown.prediction, shown.label, shown.lower, shown.upper, strict=True)
    ]
    ends = [min(*shown.prediction, *shown.label), max(*shown.prediction, *shown.label)]
    line = alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in ends]))
    diagonal = line.mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")
    colour = alt.Color("inside:N", legend=None, scale=alt.Scale(domain=["inside", "missed"], range=[ACCENT, WARN]))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("label:Q", title="Label", scale=alt.Scale(zero=False)), color=colour,
        tooltip=[
            alt.Tooltip(f"{name}:Q", title=name, format=".4~g") for name in ("label", "prediction", "lower", "upper")
        ],
    )  # fmt: skip
    bars = base.mark_rule(opacity=0.35).encode(
        y=alt.Y("lower:Q", title="Prediction", scale=alt.Scale(zero=False)), y2="upper:Q"
    )
    points = base.mark_circle(size=26, opacity=0.9).encode(y="prediction:Q")
    return finish(alt.layer(diagonal, bars, points), height=300, description="Predictions over labels")


def _calibration(record: RegressionRecord) -> Section:
    text: list[Part] = [
        "How good the predicted distributions are: as they are, and with all deviations times one factor (variance "
        "scaling) fitted on the calibration split. NLL depends on the labels' unit."
    ]
    if not record.distributions:
        return Section("calibration", "Calibration", ["The network predicts no distribution, only a number."])
    table = Table(
        ["Calibration", "Factor", "NLL", "CRPS", "Pinball loss", "Calibration error", "Sharpness"],
        [
            Row(Name(item.name), [
                number(item.factor),
                *(["\N{EN DASH}"] if e is None else [Value(e.value, "score"), " ", *between(e, "score")]
                  for e in (item.nll, item.crps, item.pinball)),
                number(item.calibration_error, "percent"), number(item.sharpness),
            ])
            for item in record.distributions
        ],
        note="Calibration error: mean distance of the curve from the diagonal. Sharpness: mean predicted standard "
        "deviation.",
    )  # fmt: skip
    charts = [
        Chart(
            f"Calibration curve, {item.name}", _curve(item.curve),
            "Of the labels, the share below each predicted quantile; on the dashed line it is what was predicted.",
        )
        for item in record.distributions if item.curve is not None
    ]  # fmt: skip
    return Section("calibration", "Calibration", text, [table], charts)


def _curve(curve: Curve) -> Spec:
    unit = alt.Scale(domain=[0, 1])
    ends = alt.Chart(alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    diagonal = ends.mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")
    rows = [{"x": x, "y": y} for x, y in zip(curve.x, curve.y, strict=True)]
    line = alt.Chart(alt.Data(values=rows)).mark_line(stroke=ACCENT, strokeWidth=2, point=len(rows) < 20).encode(
        x=alt.X("x:Q", title="Predicted probability", scale=unit, axis=alt.Axis(format="%")),
        y=alt.Y("y:Q", title="Share of labels below", scale=unit, axis=alt.Axis(format="%")),
    )  # fmt: skip
    return finish(alt.layer(diagonal, line), height=230, description="Calibration curve")


def _intervals(record: RegressionRecord) -> Section:
    error = record.intervals[0].error
    text: list[Part] = [
        "Intervals meant to hold the label with a probability of ", Value(1 - error),
        ". Conformal ones are fitted on the calibration split, and hold it as often whatever the network says. Of two "
        "with the right coverage the one with the lower interval score is better.",
    ]  # fmt: skip
    table = Table(
        ["Interval", "Guaranteed", "Coverage (PICP)", "Mean width (MPIW)", "Interval score"],
        [
            Row(Name(item.name), [
                "yes" if item.promised else "no",
                [Value(item.coverage.value), " ", *between(item.coverage)],
                number(item.width), number(item.score),
            ])
            for item in record.intervals
        ],
    )  # fmt: skip
    return Section("intervals", "Intervals", text, [table])


def _uncertainty(record: RegressionRecord) -> Section:
    if not record.uncertainty and not record.selective:
        return Section("uncertainty", "Uncertainty", ["The network tells nothing of its uncertainty."])
    tables = [
        Table(
            ["Set", "Total", "Aleatoric", "Epistemic"],
            [Row(Name(item.set), [number(item.total), number(item.aleatoric), number(item.epistemic)])
             for item in record.uncertainty],
            note="Mean predicted standard deviation, in the labels' units. Aleatoric: noise that more data would not "
            "take away. Epistemic: disagreement of the networks, which more data would take away.",
        )
    ] if record.uncertainty else []  # fmt: skip
    tables.append(
        Table(
            ["Score", "RMSE of the 80 % most certain"],
            [Row(Name(item.score), [number(item.at_80)]) for item in record.selective],
            note=f"Of all: {record.rmse.value:.4g}.",
        )
    )
    charts = [Chart(
        "RMSE of the most certain", sections.kept(record.selective, "RMSE"),
        "RMSE among the samples with the lowest score, over their share; a score that knows errors rises to the right.",
    )]  # fmt: skip
    text = ["What the network's uncertainty is worth: is it larger where errors are, and where inputs are unusual?"]
    return Section("uncertainty", "Uncertainty", text, tables, charts if record.selective else [])
