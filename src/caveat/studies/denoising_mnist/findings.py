"""What the study on OOD zeros shows: tables beside the report's figures, and its claims one by one."""

import math
from collections.abc import Mapping, Sequence

from caveat.records.findings import Cell, Figure, Findings, Row, Scale, Shot, Table, cell
from caveat.studies.denoising_mnist import figures
from caveat.studies.denoising_mnist.claims import (
    CHOSEN,
    DOUBT,
    GRID,
    PUBLISHED,
    TOP,
    Ablation,
    Judged,
    claims,
    mean,
)
from caveat.studies.denoising_mnist.rules import PIPELINE
from caveat.studies.denoising_mnist.training import COEFFICIENTS, Size
from caveat.studies.kit import common

__all__ = ["told"]

SOURCE = "Y. Song, Deep Learning Lab final project report, Yonsei University: OOD in MNIST."


def told(
    scale: Scale,
    seeds: list[int],
    size: Size,
    judged: list[Judged],
    changed: dict[str, Ablation],
    shots: figures.Shots,
    seconds: dict[str, float],
    *,
    counts: dict[str, int],
) -> Findings:
    """Findings from figures: `judged`, one entry a seed, and the networks of one seed that were trained otherwise."""
    return common.findings(
        study="denoising-mnist",
        title="Zeros among the digits 1 to 9: a classifier that is a denoising autoencoder too",
        source=SOURCE,
        scale=scale,
        seeds=seeds,
        settings={
            "width": size.width, "epochs": size.epochs, "batch": 128, "rate": "Adam, one cycle up to 4e-3",
            "noise": "square of 10 to 14 pixels, then Gaussian of deviation 0.3", "weights": "1, k 1, spread 1",
            "large squares": "16 to 20 pixels", **counts,
        },
        reduced=_reduced(size),
        claims=[] if scale == "smoke" else claims(judged, changed),
        notes=_notes(scale, judged),
        tables=[_rules(judged), _ranked(judged), _errors(judged), _changed(changed)],
        figures=_figures(judged, changed),
        shots=[
            Shot(title="Zeros, which the network never saw", png=shots.zeros,
                 caption="As they are, under noise and square, and as the autoencoder gives them back."),
            Shot(title="Validation digits", png=shots.others, caption="The same of digits it may know."),
            Shot(title="Pseudo-OOD digits", png=shots.ood,
                 caption="Above turned and largely hidden digits, below what the autoencoder makes of them."),
        ],
        seconds=seconds,
    )  # fmt: skip


def _reduced(size: Size) -> list[str]:
    return [
        f"Stages of {size.width}, {2 * size.width} and {4 * size.width} channels; the report's last kept layer has "
        f"perhaps 128 or 256. {size.epochs} epochs, which it does not tell, nor its rate, batch, noise or decoder.",
        "Equations 3 and 4 with the signs that the report's words ask for; as printed they would make wrong answers "
        "sure.",
        "The noised digits are classified in training, the clean ones in testing; the report leaves it open. One row "
        "below is of the other way.",
        "Everything was fixed on digits 1 to 9 and what is made from them. That zeros are judged on MNIST's test set "
        "is our reading: the report does not say which zeros it took.",
        "The reconstruction error at test time is that of the clean digit. The least error of pseudo-OOD digits "
        "is that with which the autoencoder made them, from noised ones, as the report has it.",
        "What is answered 0 counts as a zero found, as in the report, though no network here was taught to.",
        f"The last table is of one seed, {size.short:,} training digits and {size.short_epochs} epochs.",
    ]


def _notes(scale: Scale, judged: Sequence[Judged]) -> list[str]:
    smoke = ["Smoke: few digits, to see that all works; the figures mean nothing."] if scale == "smoke" else []
    names = ", ".join(dict.fromkeys(one.chosen for one in judged))
    pairs = [(one.rules[one.chosen]["zeros found"], one.rules[one.chosen]["others right"]) for one in judged]
    return [
        *smoke,
        f"Chosen on validation digits, by balanced accuracy over them and all pseudo-OOD ones: {names}. Seed by "
        "seed it finds "
        + ", ".join(f"{zeros:.1f} % of the zeros with {others:.1f} % of the others right" for zeros, others in pairs)
        + ".",
        "Shares at 96 % of zeros found are read off the test set, to compare with the report; no threshold was put "
        "there.",
    ]


def _rules(judged: Sequence[Judged]) -> Table:
    found = [{**one.rules, CHOSEN: one.rules[one.chosen]} for one in judged]
    printed = {PIPELINE: ("96", "90", "", "0.659", "")}
    rows: list[Row] = []
    for name in found[0]:
        shown: list[Cell] = []
        columns = ("zeros found", "others right", "validation", "softmax below", "error above")
        for column, published in zip(columns, printed.get(name, ("",) * 5), strict=True):
            values = [one[name][column] for one in found]
            shown.append(_threshold(column, values, published))
        rows.append(Row(label=name, cells=shown))
    return Table(
        title="Which digits are refused", first="refused if ... by thresholds from ...",
        columns=["zeros found, %", "others right, %", "balanced, pseudo-OOD, %", "softmax below", "error above"],
        rows=rows, digits=1,
        note="Others right: digits 1 to 9 that are accepted and rightly named. Balanced: mean of validation digits "
        "accepted and pseudo-OOD ones refused; all that the choice of a rule rests on.",
    )  # fmt: skip


def _threshold(column: str, values: list[float], published: str) -> Cell:
    """Shares as figures; thresholds as text, since they need more digits, and may be none."""
    if column in ("zeros found", "others right", "validation"):
        return cell(values, published)
    if any(math.isinf(value) for value in values):
        return Cell(text="none", published=published)
    return Cell(text=f"{mean(values):.{3 if column == 'softmax below' else 5}f}", published=published)


def _ranked(judged: Sequence[Judged]) -> Table:
    at = GRID.index(PUBLISHED[0])
    found = [
        {name: {**one.ranked[name], "others right": one.curves[name][at]} for name in one.ranked} for one in judged
    ]
    columns = ["auroc", "aupr_out", "fpr_in", "fpr_out", "others right"]
    named = ["AUROC", "AUPR-Out", "FPR at 95 % TPR", "others refused at 95 % zeros", "others right at 96 % zeros"]
    printed = {DOUBT: ("", "", "", "", "90")}
    return Table(
        title="Zeros ranked above other digits", first="score", columns=named,
        rows=common.rows(found, columns, printed),
        note="In %, zeros positive. The worse of both ranks: share of validation digits that are surer, or better "
        "reconstructed, whichever is larger; refusing above a threshold of it is the OR of two.",
    )  # fmt: skip


def _errors(judged: Sequence[Judged]) -> Table:
    found = [{str(digit): one.errors[digit] for digit in one.errors} for one in judged]
    scaled = [
        {name: {k: v * (1 if k == "largest" else 1000) for k, v in row.items()} for name, row in one.items()}
        for one in found
    ]
    return Table(
        title="Reconstruction error by digit", first="digit",
        columns=["10 %", "median", "90 %", f"among the largest {TOP}"],
        rows=common.rows(scaled, ["10 %", "median", "90 %", "largest"]), digits=2,
        note="Error in thousandths of the squared range of a pixel; test digits, 980 zeros among 10,000.",
    )  # fmt: skip


def _changed(changed: Mapping[str, Ablation]) -> Table:
    columns = [
        "accuracy", "softmax, right", "softmax, wrong", "softmax, zeros", "AUROC", "AUROC of the error", "zeros found",
        "others right",
    ]  # fmt: skip
    found = {
        name: {k: v for k, v in one.figures.items() if one.reconstructs or k != "AUROC of the error"}
        for name, one in changed.items()
    }
    return Table(
        title="Trained otherwise", first="training", columns=columns, rows=common.rows([found], columns), digits=2,
        note="Coefficient: k and spread, of the two terms beside cross-entropy; the autoencoder is trained along. "
        "Softmax: mean of the largest. Zeros found and others right by softmax against turned and hidden digits.",
    )  # fmt: skip


def _figures(judged: Sequence[Judged], changed: Mapping[str, Ablation]) -> list[Figure]:
    curves = {
        name: [mean([one.curves[name][place] for one in judged]) for place in range(len(GRID))]
        for name in judged[0].curves
    }
    shown = ("zeros found", "others right")
    points = [
        {"rule": name, **{key: mean([one.rules[name][key] for one in judged]) for key in shown}}
        for name in judged[0].rules
    ]
    return [
        Figure(
            title="The published pair is one point of a trade-off",
            spec=figures.trade_off(curves, GRID, points, PUBLISHED),
            caption="Lines: every threshold, mean over seeds. Points: the rules' thresholds, as far as they lie here, "
            "and the report's.",
        ),
        Figure(
            title="Reconstruction error by digit",
            spec=figures.by_digit(judged[0].errors),
            caption="First seed; median and range from 10 to 90 %.",
        ),
        *(
            Figure(
                title=f"Largest softmax, {name}",
                spec=figures.confidences(changed[name].histograms, description=f"Largest softmax, {name}"),
                caption="Of test digits: right and wrong answers, and zeros; each in % of its own number.",
            )
            for name in COEFFICIENTS
        ),
    ]
