"""What the study of gradient uncertainty found: tables, claims and figures, from the figures of its CNNs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import altair as alt

from caveat.records.findings import Claim, Figure, Findings, Row, Scale, Table, cell
from caveat.studies.kit import common, plots

__all__ = ["MIXTURES", "findings"]

Found = Sequence[Mapping[str, Any]]
"""One a CNN: `accuracy`, `single` and `meta` (by score, set and figure of merit); of the first also what is drawn."""
SOURCE = (
    "Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient "
    "Information, ANNPR 2018 (arXiv 1805.08440)."
)
MIXTURES: dict[str, tuple[str, ...]] = {
    "validation": (),
    "validation + noise": ("uniform",),
    "validation + noise + CIFAR-10": ("uniform", "CIFAR-10"),
    "validation + noise + CIFAR-10 + Omniglot": ("uniform", "CIFAR-10", "Omniglot"),
    "validation + normal noise": ("normal",),
}
"""What the meta classifiers are fitted on: validation digits, and 200 pictures of each kind named."""
MERITS = {"auroc": "AUROC", "aupr_in": "AUPR-In", "aupr_out": "AUPR-Out"}
LINEAR = ("GLM", "LASSO", "ridge", "elastic net")


def findings(
    found: Found, *, scale: Scale, seeds: Sequence[int], size: Mapping[str, int], names: Mapping[str, str]
) -> Findings:
    """All of it."""
    accuracy = [one["accuracy"] for one in found]
    smoke = scale == "smoke"
    return common.findings(
        study="gradient-uncertainty",
        title="Gradient uncertainty: which answers on digits are wrong, and what is no digit?",
        source=SOURCE,
        scale=scale,
        seeds=seeds,
        settings={
            **size, "optimizer": "SGD, momentum 0.9, rate / 10 on a plateau, not below 0.001",
            "decay": 1e-3, "dropout": 0.33, "weights": "Glorot", "known OOD inputs of each kind": 200,
            **names, "accuracy in %": round(sum(accuracy) / len(accuracy), 2),
        },
        reduced=_reduced(found, scale, size, names),
        claims=[] if smoke else _claims(found),
        tables=[*_tables(found, "Single metrics", "single", list(found[0]["single"])),
                *_tables(found, "Linear meta classifiers", "meta",
                         ["entropy", *(f"{name}{end}" for end in (", as published", "") for name in LINEAR)]),
                *_tables(found, "Meta classifiers by what they are fitted on", "meta",
                         [name for name in found[0]["meta"] if "; " in name])],
        figures=_figures(found[0]),
        notes=["Smoke: other data, to see that all works; the figures mean nothing."] if smoke else [
            "The paper's tables are made from files that were not published with it; none of their figures is printed "
            "here. Its claims are compared one by one.",
            "Every column compares a set with the correct answers on test digits, in %: mean and standard deviation "
            "over CNNs trained on re-drawn splits. AUPR-In: correct answers positive; AUPR-Out: the others positive.",
            "The paper's text swaps the axes of the ROC and of the precision-recall curve; here they are as usual.",
        ],
    )  # fmt: skip


def _reduced(found: Found, scale: Scale, size: Mapping[str, int], names: Mapping[str, str]) -> list[str]:
    here = [] if names["known"].startswith("EMNIST") else [
        "MNIST's 70,000 digits stand in for EMNIST's 280,000, and notMNIST, KMNIST and Omniglot for its letters "
        "(put emnist_digits and emnist_letters under CAVEAT_DATA to change that)."
    ]  # fmt: skip
    if scale != "full":
        here.append(
            f"{size['nets']} CNNs instead of 10, each with {size['train']:,} digits for training, {size['held_out']:,} "
            f"for validation and {size['test']:,} for the test instead of 60,000, 20,000 and 200,000; {size['epochs']} "
            f"epochs; {size['ood']:,} pictures of each OOD set."
        )
    if restarted := sum(one["restarts"] > 0 for one in found):
        here.append(
            f"{restarted} of the CNNs diverged at the paper's rate and were trained again at half of it or less."
        )
    return [
        *here,
        "As published: 29 standardised columns (seven metrics of four layers, entropy), penalties of strength 1. The "
        "other rows: the same columns by asinh of multiples of their median, clipped to the range seen in fitting, the "
        "strength by cross-validation.",
        "The elastic net of strength 1 is |w|/2 + w^2/4 (scikit-learn's); the meta NN is fitted by L-BFGS, not SGD.",
        "Weights and biases of a layer are taken together; the paper leaves it open.",
        "Dropout follows the first pooling and the third convolution.",
    ]


def _tables(found: Found, title: str, part: str, methods: Sequence[str]) -> list[Table]:
    sets = list(found[0]["single"]["entropy"])

    def row(name: str, merit: str) -> Row:
        where = "single" if name in found[0]["single"] else part
        return Row(label=name, cells=[cell([one[where][name][other][merit] for one in found]) for other in sets])

    return [
        Table(title=f"{title}: {words}", first="score", columns=sets, rows=[row(name, merit) for name in methods])
        for merit, words in MERITS.items()
    ]


Verdict = Literal["confirmed", "partly", "refuted", "untested"]


def _claims(found: Found) -> list[Claim]:
    sets = list(found[0]["single"]["entropy"])
    noises, shapes = (
        [s for s in sets if s in ("uniform", "normal")],
        [s for s in sets if s not in ("uniform", "normal")],
    )
    near = [s for s in shapes if s != "CIFAR-10"]

    def mean(name: str, merit: str, over: Sequence[str]) -> float:
        part = "single" if name in found[0]["single"] else "meta"
        values = [one[part][name][other][merit] for one in found for other in over]
        return sum(values) / len(values)

    def gains(name: str, base: str, merit: str) -> dict[str, float]:
        return {other: mean(name, merit, [other]) - mean(base, merit, [other]) for other in sets}

    norms = [f"{statistic}, all layers" for statistic in ("l1", "l2", "min", "max")]
    shapeless = [f"{statistic}, all layers" for statistic in ("mean", "skewness", "kurtosis")]
    best = max(norms, key=lambda name: mean(name, "auroc", near))
    behind = mean("entropy", "auroc", near) - mean(best, "auroc", near)
    useless = {name: mean(name, "auroc", sets) for name in shapeless}
    on_noise = {name: mean(name, "aupr_out", noises) for name in ("entropy", best)}
    noise = gains("NN; validation + noise", "NN; validation", "aupr_out")
    printed = gains("NN, as published; validation + noise", "NN, as published; validation", "aupr_out")
    more = gains("NN; validation + noise + CIFAR-10 + Omniglot", "NN; validation + noise", "aupr_out")
    others = [s for s in sets if s not in ("uniform", "normal", "CIFAR-10", "Omniglot")]
    normal = gains("NN; validation + normal noise", "NN; validation", "aupr_out")
    own = {
        k: mean(f"NN; {k}", "auroc", ["wrong"])
        for k in ("validation", "validation + noise", "validation + normal noise")
    }
    lively = "NN on activations; validation + noise"
    active = {"all": mean(lively, "auroc", sets), "wrong": mean(lively, "auroc", ["wrong"])}
    against = gains("NN; validation + noise", "entropy", "aupr_out")
    return [
        Claim(
            claim="Single gradient metrics are comparable to entropy and softmax as thresholds",
            verdict="confirmed" if behind <= 1 else "partly" if behind <= 3 else "refuted",
            found=f"On wrong answers and shapes of strokes ({', '.join(near)}) the best norm ({best}) reaches a mean "
            f"AUROC of {mean(best, 'auroc', near):.1f}, entropy {mean('entropy', 'auroc', near):.1f}, softmax "
            f"{mean('softmax', 'auroc', near):.1f}.",
        ),
        Claim(
            claim="Mean, skewness and kurtosis are unfit as thresholds",
            verdict=_all(value < mean("entropy", "auroc", sets) - 10 for value in useless.values()),
            found="Mean AUROC over all sets: "
            + ", ".join(f"{name} {value:.1f}" for name, value in useless.items())
            + f"; entropy {mean('entropy', 'auroc', sets):.1f}. Each in the direction that is better in validation.",
        ),
        Claim(
            claim="Single gradient metrics find noise badly",
            verdict="confirmed" if on_noise["entropy"] > on_noise[best] + 2 else "refuted",
            found=f"AUPR-Out on noise: {best} {on_noise[best]:.1f}, entropy {on_noise['entropy']:.1f}.",
        ),
        _linear(mean, sets, ", as published", "as published, on standardised columns, strength 1"),
        _linear(mean, sets, "", "on clipped logarithms, strength by cross-validation"),
        Claim(
            claim="Known OOD inputs lift AUPR-Out of the meta NN: 200 pictures of uniform noise already do",
            verdict=_all(gain > 0 for gain in noise.values()),
            found=f"By {_listed(noise)} points; mean {_average(noise):.1f}. As published, without clipped logarithms: "
            f"{_listed(printed)}; mean {_average(printed):.1f}.",
        ),
        Claim(
            claim="With them the meta NN is better than entropy on every set",
            verdict=_all(gain > 0 for gain in against.values()),
            found=f"AUPR-Out above entropy's: {_listed(against)} points; mean {_average(against):.1f}.",
        ),
        Claim(
            claim="More kinds of known OOD inputs help more",
            verdict=_all(more[other] > 0 for other in others),
            found=f"CIFAR-10 and Omniglot added: {_listed(more)} points of AUPR-Out. On sets of which none was "
            f"shown ({', '.join(others)}): mean {_average({k: more[k] for k in others}):.1f}.",
        ),
        Claim(
            claim="Normal noise helps less than uniform noise, and harms on wrong answers",
            verdict="confirmed"
            if _average(normal) < _average(noise) and own["validation + normal noise"] < own["validation"]
            else "partly"
            if _average(normal) < _average(noise) or own["validation + normal noise"] < own["validation"]
            else "refuted",
            found=f"AUPR-Out rises by {_average(normal):.1f} points on average, with uniform noise by "
            f"{_average(noise):.1f}; AUROC on wrong answers {own['validation + normal noise']:.2f}, with uniform noise "
            f"{own['validation + noise']:.2f}, without {own['validation']:.2f}.",
        ),
        Claim(
            claim="Statistics of activations may serve as well (the paper's outlook)",
            verdict="confirmed"
            if active["all"] >= mean("NN; validation + noise", "auroc", sets) - 1
            else "refuted",
            found=f"Mean AUROC of the NN with 200 pictures of noise: {active['all']:.1f} on activations and entropy, "
            f"{mean('NN; validation + noise', 'auroc', sets):.1f} on gradients and entropy; on wrong answers "
            f"{active['wrong']:.1f} and {own['validation + noise']:.1f}.",
        ),
    ]  # fmt: skip


def _linear(mean: Callable[[str, str, Sequence[str]], float], sets: Sequence[str], end: str, words: str) -> Claim:
    plain = {other: mean(f"GLM{end}", "aupr_out", [other]) for other in sets}
    better = [o for o in sets if min(mean(f"{k}{end}", "aupr_out", [o]) for k in ("LASSO", "elastic net")) > plain[o]]
    averages = {name: mean(f"{name}{end}", "aupr_out", sets) for name in LINEAR}
    ahead = min(averages["LASSO"], averages["elastic net"]) > averages["GLM"]
    return Claim(
        claim=f"LASSO and elastic net are better than the GLM ({words})",
        verdict="confirmed" if ahead and len(better) == len(sets) else "partly" if ahead or better else "refuted",
        found=f"Both have the higher AUPR-Out on {len(better)} of {len(sets)} sets ({', '.join(better) or 'none'}). "
        "Mean: "
        + ", ".join(f"{name} {value:.1f}" for name, value in averages.items())
        + f"; entropy {mean('entropy', 'aupr_out', sets):.1f}.",
    )


def _all(each: Any) -> Verdict:
    seen = list(each)
    return "confirmed" if all(seen) else "partly" if any(seen) else "refuted"


def _listed(gains: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {round(gain, 1) + 0.0:+.1f}" for name, gain in gains.items())


def _average(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _figures(first: Mapping[str, Any]) -> list[Figure]:
    largest: dict[str, float] = {}
    for row in first["path"]:
        largest[row["column"]] = max(largest.get(row["column"], 0.0), abs(row["coefficient"]))
    shown = sorted(largest, key=lambda name: -largest[name])[:8]
    path = plots.lines(
        [row for row in first["path"] if row["column"] in shown], x="strength", y="coefficient", colour="column",
        log_x=True, description="Coefficients of the LASSO over the strength of its penalty",
    )  # fmt: skip
    made = [
        Figure(
            title="The LASSO's path", spec=path,
            caption="First CNN, validation digits alone; the eight columns with the largest coefficients.",
        ),
        Figure(
            title="What the meta NN lives on", spec=_bars(first["importances"]),
            caption="By how much the log loss grows (nats) when the columns of a layer, or of a statistic, are "
            "shuffled together; all test sets, NN with 200 pictures of noise.",
        ),
    ]  # fmt: skip
    statistics = list(dict.fromkeys(row["statistic"] for row in first["strips"]))
    return made + [
        Figure(
            title=f"{_axis(statistic)}, over all layers",
            spec=_strip([row for row in first["strips"] if row["statistic"] == statistic], statistic),
            caption="Where each set's values lie: darker = more. First CNN.",
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
    colours = alt.Scale(domain=["correct", "wrong", "ood"], range=[plots.COLOURS[k] for k in (0, 2, 1)])
    values = [
        {k: row[k] for k in ("set", "from", "to", "share")}
        | {"kind": row["set"] if row["set"] in ("correct", "wrong") else "ood"}
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
