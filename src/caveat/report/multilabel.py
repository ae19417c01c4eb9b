"""The page of a multi-label network's audit."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from caveat.files import write_atomically
from caveat.records.base import Estimate
from caveat.records.multilabel import MultilabelRecord, OneLabel
from caveat.records.record import Reliability
from caveat.report import figures, sections
from caveat.report.figures import ACCENT, MUTED, Spec, finish
from caveat.report.sections import Chart, Overview, Row, Section, Table, number
from caveat.report.shown import Name, Part, Value, between, estimate

__all__ = ["bottom_line", "render", "worst_first", "write"]

BARS = 40
"""Labels in a chart."""


def render(record: MultilabelRecord) -> str:
    """Make the report: one HTML page that needs no network and nothing beside itself."""
    parts = [
        _labels(record), _together(record), _calibration(record), _label_sets(record), _uncertainty(record),
        sections.detections(record, record.detections),
        sections.operating(
            record.operating, error="Hamming loss", kind="percent", coverage="Share of the labels found"
        ),
    ]  # fmt: skip
    return sections.render(record, _overview(record), parts)


def write(record: MultilabelRecord, path: str | Path) -> None:
    """Make the report and store it: under a temporary name first, then renamed."""
    write_atomically(Path(path), render(record))


def bottom_line(record: MultilabelRecord) -> list[Part]:
    """The verdict in some sentences."""
    before, after = record.probabilities
    found: list[Part] = [
        "Of all yes-or-no answers, ", Value(record.hamming_loss.value), " are wrong (Hamming loss); every label is "
        "right for ", Value(record.subset_accuracy.value), " of the samples. ",
    ]  # fmt: skip
    if record.mean_average_precision is not None:
        found += [
            "Ranked by probability, the labels' average precision is ", Value(record.mean_average_precision),
            " in the mean (mAP). ",
        ]  # fmt: skip
    found += [
        "The probabilities are off by ", Value(before.ece), " (ECE of all pairs of sample and label)",
    ]  # fmt: skip
    found += ["; a temperature for each label makes it ", Value(after.ece), ". "] if after.ece < before.ece else [". "]
    sets = record.label_sets
    if sets is not None and sets.threshold > 0:
        found += [
            "Label sets by conformal risk control hold ", Value(sets.found.value), " of a sample's labels (",
            Value(1 - sets.error), " promised), with ", Value(sets.size["test"], "score"), " labels in the mean.",
        ]  # fmt: skip
    return found


def _overview(record: MultilabelRecord) -> Overview:
    tiles: list[tuple[str, Part, Sequence[Part]]] = [
        ("Macro F1", Value(record.f1_macro), ["mean of the labels"]),
        ("Every label right", Value(record.subset_accuracy.value), between(record.subset_accuracy)),
        ("ECE, all pairs", Value(record.probabilities[0].ece), ["0 is calibrated"]),
    ]
    if record.mean_average_precision is not None:
        tiles.insert(0, ("mAP", Value(record.mean_average_precision), ["mean average precision"]))
    step: list[Part] = ["put a guard in front of it: ", Name("caveat guard fit"), "."]
    if record.warnings:
        step = ["mend what the warnings name, then audit again."]
    elif not record.operating:
        step = ["give more test samples, so that a guard can be fitted; the notes say how many."]
    return Overview(bottom_line(record), step, tiles, _caveats(record))


def _caveats(record: MultilabelRecord) -> dict[str, list[Sequence[Part]]]:
    found: dict[str, list[Sequence[Part]]] = {"trust": [], "care": [], "no": []}
    sets = record.label_sets
    if sets is not None and sets.threshold > 0 and sets.found.highest >= 1 - sets.error:
        found["trust"].append(
            ["Label sets of all labels with a probability of ", Value(sets.threshold, "score"), " or more: they miss "
             "at most ", Value(sets.error), " of a new in-distribution input's labels, in expectation."]
        )  # fmt: skip
    before, after = record.probabilities
    if before.ece_any.lowest > 0:
        found["care"].append(
            ["The probability that an input has any label, as independent labels would have it: it is off by ",
             Value(before.ece_any.value), " (ECE)."]
        )  # fmt: skip
    off = [row.name for row in record.labels if row.ece.lowest > 0]
    if off:
        found["care"].append(
            [f"The probabilities of {len(off)} of {len(record.labels)} labels: their ECE is above what chance would "
             "give; temperature scaling brings the mean of all labels' from ", Value(before.ece_labelwise), " to ",
             Value(after.ece_labelwise), "."]
        )  # fmt: skip
    useless = [row for row in record.labels if row.auroc is not None and row.auroc.lowest <= 0.5]
    if useless:
        found["no"].append(
            [f"{len(useless)} of {len(record.labels)} labels, which may be ranked no better than by chance: ",
             *_listed([row.name for row in useless]), "."]
        )  # fmt: skip
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


def _listed(names: Sequence[str]) -> list[Part]:
    shown: list[Part] = []
    for name in names[:5]:
        shown += [", ", Name(name)] if shown else [Name(name)]
    return [*shown, f" and {len(names) - 5} more"] if len(names) > 5 else shown


def _or_dash(found: Estimate | None) -> Sequence[Part]:
    return ["\N{EN DASH}"] if found is None else estimate(found)


def worst_first(record: MultilabelRecord) -> list[OneLabel]:
    """The labels that are found worst first; those of which nothing is known last."""

    def rank(row: OneLabel) -> tuple[bool, float]:
        return row.average_precision is None, 0.0 if row.average_precision is None else row.average_precision.value

    return sorted(record.labels, key=rank)


def _labels(record: MultilabelRecord) -> Section:
    rows = worst_first(record)
    table = Table(
        ["Label", "Prevalence", "AUROC", "Average precision", "F1", "Precision", "Recall", "Accuracy"],
        [
            Row(Name(row.name), [
                estimate(row.prevalence), _or_dash(row.auroc), _or_dash(row.average_precision),
                number(row.f1, "percent"), _or_dash(row.precision), _or_dash(row.recall), estimate(row.accuracy),
            ])
            for row in rows
        ],
        note="F1, precision, recall and accuracy at the threshold. A label that is never predicted has no precision, "
        "one that no sample has no recall.",
    )  # fmt: skip
    text: list[Part] = [
        "How well each label is found, the worst first. AUROC and average precision rank the samples by the label's "
        "probability; a useless network has 50 % and the prevalence. Predicted is a label with a probability of at "
        "least ",
        Value(record.threshold, "score"), ". In brackets: 95 % intervals.",
    ]  # fmt: skip
    known = [row for row in rows if row.average_precision is not None]
    title = "Average precision" if len(known) <= BARS else f"Average precision of the {BARS} labels found worst"
    charts = [
        Chart(title, _bars(known[:BARS]), "The line in each bar is the label's prevalence, which chance reaches.")
    ]
    return Section("labels", "Labels", text, [table], charts if known else [])


def _bars(rows: Sequence[OneLabel]) -> Spec:
    values = [
        {"label": row.name, "ap": row.average_precision.value, "prevalence": row.prevalence.value}
        for row in rows if row.average_precision is not None
    ]  # fmt: skip
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("label:N", title=None, sort=None),
        tooltip=[
            alt.Tooltip("label:N"), alt.Tooltip("ap:Q", title="average precision", format=".1%"),
            alt.Tooltip("prevalence:Q", format=".1%"),
        ],
    )  # fmt: skip
    axis = alt.Axis(format="%")
    bars = base.mark_bar(fill=ACCENT, height=9).encode(
        x=alt.X("ap:Q", title="Average precision", scale=alt.Scale(domain=[0, 1]), axis=axis)
    )
    ticks = base.mark_tick(stroke=MUTED, thickness=2, size=13).encode(x="prevalence:Q")
    return finish(alt.layer(bars, ticks), height=max(80, 17 * len(values)), description="Average precision of labels")


def _together(record: MultilabelRecord) -> Section:
    labels = Table(
        ["", "Micro F1", "Macro F1", "Hamming loss", "Every label right", "Labels of a sample"],
        [Row("test", [
            number(record.f1_micro, "percent"), number(record.f1_macro, "percent"), estimate(record.hamming_loss),
            estimate(record.subset_accuracy), number(record.labels_of_each),
        ])],
        title="As sets of labels",
        note="Micro F1 counts pairs of sample and label, so that frequent labels decide it; macro F1 is the mean of "
        "the labels.",
    )  # fmt: skip
    ranking = Table(
        ["", "mAP", "Label ranking average precision", "Ranking loss", "Coverage error"],
        [Row("test", [
            number(record.mean_average_precision, "percent"), estimate(record.label_ranking_average_precision),
            estimate(record.ranking_loss), estimate(record.coverage_error, "score"),
        ])],
        title="As rankings of labels",
        note="Ranking loss: share of the pairs of a true and a false label of a sample in the wrong order. Coverage "
        "error: how many of a sample's ranked labels it takes to hold all true ones.",
    )  # fmt: skip
    return Section("together", "All labels", ["What is right of all labels together."], [labels, ranking])


def _calibration(record: MultilabelRecord) -> Section:
    text = [
        "Whether probabilities are the rates at which labels are there: as they are, and with a temperature for each "
        "label, fitted on the calibration split. The last is of the probability that a sample has any label, 1 - "
        "product of (1 - p): it takes the labels for independent given the input, which sigmoids do not promise."
    ]
    pooled = Table(
        ["Calibration", "Cross-entropy", "ECE, all pairs", "ECE, mean of the labels", "ECE, any label"],
        [
            Row(Name(item.name), [
                estimate(item.cross_entropy, "plain"), number(item.ece, "percent"),
                number(item.ece_labelwise, "percent"), estimate(item.ece_any),
            ])
            for item in record.probabilities
        ],
        note="Pairs of one sample are not independent: no interval is given of what they share.",
    )  # fmt: skip
    each = Table(
        ["Label", "ECE", "ECE, scaled", "Temperature"],
        [
            Row(Name(row.name), [estimate(row.ece), estimate(row.ece_scaled), number(row.temperature)])
            for row in sorted(record.labels, key=lambda row: -row.ece.value)
        ],
        title="Label by label, the worst first",
    )  # fmt: skip
    before, after = record.probabilities
    caption = (
        "On the dashed line a label is there as often as its probability says; the larger a point, the more pairs."
    )
    anyone = "The same of whether a sample has a label at all, as independent labels would have it."
    charts = [
        Chart("Reliability of all pairs, as they are", _reliability(before.reliability), caption),
        Chart("With a temperature for each label", _reliability(after.reliability), caption),
        Chart("Reliability of any label, as it is", _reliability(before.reliability_any), anyone),
        Chart("Of any label, with a temperature for each", _reliability(after.reliability_any), anyone),
    ]
    return Section("calibration", "Calibration", text, [pooled, each], charts)


def _reliability(found: Reliability) -> Spec:
    rows = [
        {"confidence": p, "accuracy": y, "share": share}
        for p, y, share in zip(found.confidence, found.accuracy, found.share, strict=True)
    ]
    return figures.reliability(
        alt.Data(values=rows), of="Probability", rate="Share that have the label", part="Share of all"
    )


def _label_sets(record: MultilabelRecord) -> Section:
    sets = record.label_sets
    if sets is None:
        return Section("sets", "Label sets", ["No calibration sample has a label: nothing can be promised of them."])
    text: list[Part] = [
        "All labels with a probability of at least ", Value(sets.threshold, "score"), ": in expectation they miss at "
        "most a share of ", Value(sets.error), " of the labels of a new in-distribution input that has some, whatever "
        "the network (conformal risk control, fitted on ", Value(sets.fitted_on, "count"), " samples). Of the ",
        Value(sets.judged_on, "count"), " evaluation samples with labels they find ", *estimate(sets.found), ".",
    ]  # fmt: skip
    table = Table(
        ["Set", "Labels in a set, mean"], [Row(Name(name), [number(size)]) for name, size in sets.size.items()]
    )
    return Section("sets", "Label sets", text, [table])


def _uncertainty(record: MultilabelRecord) -> Section:
    table = Table(
        ["Score", "Hamming loss of the 80 % most certain"],
        [Row(Name(item.score), [number(item.at_80, "percent")]) for item in record.selective],
    )
    caption = (
        "Hamming loss among the samples with the lowest score, over their share; a useful score rises to the right."
    )
    chart = Chart(
        "Hamming loss of the most certain", sections.kept(record.selective, "Hamming loss", percent=True), caption
    )
    text: list[Part] = [
        "What the scores are worth: are errors where they are high? The Hamming loss of all is ",
        Value(record.hamming_loss.value), ".",
    ]  # fmt: skip
    return Section("uncertainty", "Uncertainty", text, [table], [chart])
