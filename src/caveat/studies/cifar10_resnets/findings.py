"""What the study of the CIFAR-10 ResNets shows: each network and their ensemble, and scores beside OpenOOD's table."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from caveat.records.findings import Cell, Claim, Findings, Row, Scale, Table
from caveat.studies.kit import common
from caveat.studies.kit.published import Printed, published

__all__ = ["ENSEMBLE", "NEAR", "conclude"]

ENSEMBLE = "all as an ensemble"
NEAR = ("CIFAR-100", "tiny-ImageNet")
"""OpenOOD calls these near, and the others far."""
SCORES = ("msp", "entropy", "energy", "mutual information")
Figures = Mapping[str, Mapping[str, float]]


def conclude(
    scale: Scale,
    seed: int,
    ood: Sequence[str],
    counts: Mapping[str, int],
    judged: Figures,
    scored: Mapping[str, Figures],
) -> Findings:
    """Findings from the figures of each network, of all together, and of every score of some."""
    source, smoke = published("cifar10_resnets"), scale == "smoke"
    sizes = ", ".join(f"{title} {count}" for title, count in counts.items())
    return common.findings(
        study="cifar10-resnets", title="Four public ResNets of CIFAR-10, and their ensemble", source=source.source,
        scale=scale, seeds=[seed], settings={f"pictures: {title}": count for title, count in counts.items()},
        reduced=[
            "ResNets of 0.27 to 0.85 million weights where OpenOOD has a ResNet-18 of 11 million, and other far sets: "
            "compare the order of the scores, not their figures.",
            *([] if scale == "full" else [f"Pictures: {sizes}."]),
        ],
        claims=[] if smoke else [_together(judged, ood), *(_order(name, one, ood, source.tables["scores"])
                                                           for name, one in scored.items())],
        notes=[
            "Scores are fitted on 5,000 training pictures without loss. Every OOD set is set against test pictures of "
            "its own coding: tiny-ImageNet is of JPEG files, and so is the CIFAR-10 beside it.",
            *(["Smoke: toys, to see that everything works; the figures mean nothing."] if smoke else []),
        ],
        tables=[
            _networks(judged, source.tables["networks"]), _detection(judged, ood),
            *(_scores(name, one, ood, source.tables["scores"]) for name, one in scored.items()),
        ],
    )  # fmt: skip


def _networks(judged: Figures, printed: Printed) -> Table:
    columns = ("accuracy", "NLL", "ECE")
    return Table(
        title="On the test set", first="network", columns=["accuracy (%)", "NLL", "ECE (%)"], digits=3,
        rows=[Row(label=name, cells=[Cell(value=one[column], published=printed.at(name, column)) for column in columns])
              for name, one in judged.items()],
        note="The ensemble's probabilities are the mean of the networks'.",
    )  # fmt: skip


def _detection(judged: Figures, ood: Sequence[str]) -> Table:
    return Table(
        title="OOD detection by the probabilities: AUROC in %", first="network and score", columns=list(ood), digits=1,
        rows=[
            Row(label=f"{name}: {score}", cells=[Cell(value=one[f"{score}, {title}"]) for title in ood])
            for name, one in judged.items() for score in SCORES if f"{score}, {ood[0]}" in one
        ],
        note="Energy of the ensemble: the mean of the networks' energies.",
    )  # fmt: skip


def _means(figures: Mapping[str, float]) -> tuple[float, float]:
    """Of the near sets and of the far ones; where a run has no set of a kind, of all."""
    near = [value for title, value in figures.items() if title in NEAR] or [*figures.values()]
    far = [value for title, value in figures.items() if title not in NEAR] or [*figures.values()]
    return sum(near) / len(near), sum(far) / len(far)


def _scores(name: str, figures: Figures, ood: Sequence[str], printed: Printed) -> Table:
    def row(score: str, one: Mapping[str, float]) -> Row:
        near, far = _means(one)
        means = [
            Cell(value=near, published=printed.at(score, "near")),
            Cell(value=far, published=printed.at(score, "far")),
        ]
        return Row(label=score, cells=means + [Cell(value=one[title]) for title in ood])

    best = sorted(figures, key=lambda score: -sum(_means(figures[score])))
    return Table(
        title=f"{name}: AUROC in % of every score that costs no pass of its own", first="score",
        columns=["near", "far", *ood], rows=[row(score, figures[score]) for score in best], digits=1,
        note="Published: OpenOOD's ResNet-18, whose far sets are MNIST, SVHN, textures and places. Best first.",
    )  # fmt: skip


def _together(judged: Figures, ood: Sequence[str]) -> Claim:
    alone = {name: one for name, one in judged.items() if name != ENSEMBLE}
    whole = judged[ENSEMBLE]
    best = {
        "accuracy": max(one["accuracy"] for one in alone.values()),
        "NLL": min(one["NLL"] for one in alone.values()),
        "ECE": min(one["ECE"] for one in alone.values()),
    }
    reached = [f"msp, {title}" for title in ood]
    highest = {key: max(one[key] for one in alone.values()) for key in reached}
    return Claim(
        claim="An ensemble of architectures is more accurate, better calibrated and detects more than its best member",
        verdict=common.verdict([
            whole["accuracy"] > best["accuracy"], whole["NLL"] < best["NLL"], whole["ECE"] < best["ECE"],
            *(whole[key] > highest[key] for key in reached),
        ]),
        found=f"Ensemble against the best member in each figure: accuracy {whole['accuracy']:.2f} against "
        f"{best['accuracy']:.2f} %, NLL {whole['NLL']:.3f} against {best['NLL']:.3f}, ECE {whole['ECE']:.2f} against "
        f"{best['ECE']:.2f} %; AUROC of msp "
        + ", ".join(f"{key.removeprefix('msp, ')} {whole[key]:.1f} against {highest[key]:.1f}" for key in reached),
    )  # fmt: skip


def _order(name: str, figures: Figures, ood: Sequence[str], printed: Printed) -> Claim:
    both = [score for score in figures if score in printed.rows]
    means = {score: _means(figures[score]) for score in both}
    near, far = (
        _correlation([means[score][place] for score in both], [float(printed.at(score, column)) for score in both])
        for place, column in enumerate(("near", "far"))
    )
    return Claim(
        claim=f"Scores that are good on OpenOOD's ResNet-18 are good on {name}",
        verdict=common.verdict([near > 0.5, far > 0.5]),
        found=f"Rank correlation of {len(both)} scores' AUROC with OpenOOD's: near {near:.2f}, far {far:.2f}.",
    )


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Spearman's, of ranks."""
    return float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
