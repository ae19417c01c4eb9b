"""What the study of gradient uncertainty shows: tables and claims, from the figures of its CNNs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caveat.records.findings import Claim, Findings, Row, Scale, Table, cell
from caveat.studies.gradient_uncertainty.figures import figures
from caveat.studies.gradient_uncertainty.training import FEW
from caveat.studies.kit import common
from caveat.studies.kit.published import published

__all__ = ["MIXTURES", "conclude"]

Found = Sequence[Mapping[str, Any]]
"""One a CNN: `accuracy`, `single` and `meta` (by score, set and figure of merit); of the first also what is drawn."""
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
NOISES = ("uniform", "normal")
KINDS_OF_NOISE = ("noise", "normal noise")
"""Names of the mixtures with one kind of noise."""


def conclude(
    found: Found, *, scale: Scale, seeds: Sequence[int], size: Mapping[str, int], names: Mapping[str, str]
) -> Findings:
    """Findings from the figures of each CNN."""
    accuracy = [one["accuracy"] for one in found]
    smoke = scale == "smoke"
    return common.findings(
        study="gradient-uncertainty",
        title="Gradient uncertainty: detecting misclassified digits and OOD inputs",
        source=published("gradient_uncertainty").source,
        scale=scale,
        seeds=seeds,
        settings={
            **size, "optimizer": "SGD, momentum 0.9, rate / 10 on a plateau, not below 0.001",
            "decay": 1e-3, "dropout": 0.33, "weights": "Glorot", "OOD inputs of each kind in the fit": FEW,
            **names, "accuracy in %": round(sum(accuracy) / len(accuracy), 2),
        },
        reduced=_reduced(found, scale, size, names),
        claims=[] if smoke else _claims(found),
        tables=[*_tables(found, "Single metrics", "single", list(found[0]["single"])),
                *_tables(found, "Linear meta classifiers", "meta",
                         ["entropy", *(f"{name}{end}" for end in (", as published", "") for name in LINEAR)]),
                *_tables(found, "Meta classifiers by their training data", "meta",
                         [name for name in found[0]["meta"] if "; " in name])],
        figures=figures(found[0]),
        notes=["Smoke: other data, to see that everything works; the figures mean nothing."] if smoke else [
            "The files of the paper's tables were not published with it; none of their figures is printed here. Its "
            "claims are compared one by one.",
            "Every column compares a set with the correct predictions on test digits, in %: mean and standard "
            "deviation over CNNs trained on re-drawn splits. AUPR-In: correct predictions positive; AUPR-Out: the "
            "others.",
            "The paper's text swaps the axes of the ROC and of the precision-recall curve; here they are as usual.",
        ],
    )  # fmt: skip


def _reduced(found: Found, scale: Scale, size: Mapping[str, int], names: Mapping[str, str]) -> list[str]:
    here = [] if names["in-distribution"].startswith("EMNIST") else [
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
        "other rows: the same columns by asinh of multiples of their median, clipped to the range of the fit, the "
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


@dataclass(frozen=True)
class _Means:
    """Means over the CNNs, by score, metric and sets."""

    found: Found

    def sets(self) -> list[str]:
        """What is compared with the correct predictions."""
        return list(self.found[0]["single"]["entropy"])

    def mean(self, name: str, merit: str, over: Sequence[str]) -> float:
        """Over those sets, too."""
        part = "single" if name in self.found[0]["single"] else "meta"
        values = [one[part][name][other][merit] for one in self.found for other in over]
        return sum(values) / len(values)

    def gains(self, name: str, base: str) -> dict[str, float]:
        """Of AUPR-Out over another score, by set."""
        return {s: self.mean(name, "aupr_out", [s]) - self.mean(base, "aupr_out", [s]) for s in self.sets()}


def _claims(found: Found) -> list[Claim]:
    means = _Means(found)
    return [
        *_single_claims(means),
        _linear(means, ", as published", "as published, on standardised columns, strength 1"),
        _linear(means, "", "on clipped logarithms, strength by cross-validation"),
        *_mixture_claims(means),
        _normal_noise(means),
        _activations(means),
    ]


def _single_claims(means: _Means) -> list[Claim]:
    sets = means.sets()
    noises = [s for s in sets if s in NOISES]
    near = [s for s in sets if s not in (*NOISES, "CIFAR-10")]
    norms = [f"{statistic}, all layers" for statistic in ("l1", "l2", "min", "max")]
    best = max(norms, key=lambda name: means.mean(name, "auroc", near))
    behind = means.mean("entropy", "auroc", near) - means.mean(best, "auroc", near)
    shapeless = [f"{statistic}, all layers" for statistic in ("mean", "skewness", "kurtosis")]
    useless = {name: means.mean(name, "auroc", sets) for name in shapeless}
    entropy = means.mean("entropy", "auroc", sets)
    on_noise = {name: means.mean(name, "aupr_out", noises) for name in ("entropy", best)}
    return [
        Claim(
            claim="Single gradient metrics are comparable to entropy and softmax as scores to threshold",
            verdict="confirmed" if behind <= 1 else "partly" if behind <= 3 else "refuted",
            found=f"On wrong predictions and other characters ({', '.join(near)}) the best norm ({best}) reaches a "
            f"mean AUROC of {means.mean(best, 'auroc', near):.1f}, entropy {means.mean('entropy', 'auroc', near):.1f}, "
            f"softmax {means.mean('softmax', 'auroc', near):.1f}.",
        ),
        Claim(
            claim="Mean, skewness and kurtosis are unsuitable as scores to threshold",
            verdict=common.verdict(value < entropy - 10 for value in useless.values()),
            found="Mean AUROC over all sets: "
            + ", ".join(f"{name} {value:.1f}" for name, value in useless.items())
            + f"; entropy {entropy:.1f}. Each in the direction that is better in validation.",
        ),
        Claim(
            claim="Single gradient metrics detect noise badly",
            verdict="confirmed" if on_noise["entropy"] > on_noise[best] + 2 else "refuted",
            found=f"AUPR-Out on noise: {best} {on_noise[best]:.1f}, entropy {on_noise['entropy']:.1f}.",
        ),
    ]


def _mixture_claims(means: _Means) -> list[Claim]:
    noise = means.gains("NN; validation + noise", "NN; validation")
    printed = means.gains("NN, as published; validation + noise", "NN, as published; validation")
    against = means.gains("NN; validation + noise", "entropy")
    more = means.gains("NN; validation + noise + CIFAR-10 + Omniglot", "NN; validation + noise")
    others = [s for s in means.sets() if s not in (*NOISES, "CIFAR-10", "Omniglot")]
    return [
        Claim(
            claim="OOD inputs in the fit raise AUPR-Out of the meta NN: 200 pictures of uniform noise are enough",
            verdict=common.verdict(gain > 0 for gain in noise.values()),
            found=f"By {_listed(noise)} points; mean {_average(noise):.1f}. As published, without clipped logarithms: "
            f"{_listed(printed)}; mean {_average(printed):.1f}.",
        ),
        Claim(
            claim="With them the meta NN is better than entropy on every set",
            verdict=common.verdict(gain > 0 for gain in against.values()),
            found=f"AUPR-Out above entropy's: {_listed(against)} points; mean {_average(against):.1f}.",
        ),
        Claim(
            claim="More kinds of OOD inputs in the fit help more",
            verdict=common.verdict(more[other] > 0 for other in others),
            found=f"CIFAR-10 and Omniglot added: {_listed(more)} points of AUPR-Out. On sets that were not in the fit "
            f"({', '.join(others)}): mean {_average({k: more[k] for k in others}):.1f}.",
        ),
    ]


def _normal_noise(means: _Means) -> Claim:
    noise, normal = (_average(means.gains(f"NN; validation + {kind}", "NN; validation")) for kind in KINDS_OF_NOISE)
    plain, with_noise, with_normal = (
        means.mean(f"NN; validation{kind}", "auroc", ["wrong"]) for kind in ("", *(f" + {k}" for k in KINDS_OF_NOISE))
    )
    less, harms = normal < noise, with_normal < plain
    return Claim(
        claim="Normal noise helps less than uniform noise, and harms the detection of wrong predictions",
        verdict="confirmed" if less and harms else "partly" if less or harms else "refuted",
        found=f"AUPR-Out rises by {normal:.1f} points on average, with uniform noise by {noise:.1f}; AUROC on wrong "
        f"predictions {with_normal:.2f}, with uniform noise {with_noise:.2f}, without {plain:.2f}.",
    )


def _activations(means: _Means) -> Claim:
    sets = means.sets()
    own, other = "NN; validation + noise", "NN on activations; validation + noise"
    gradients, activations = (means.mean(name, "auroc", sets) for name in (own, other))
    return Claim(
        claim="Statistics of activations may do as well (the paper's outlook)",
        verdict="confirmed" if activations >= gradients - 1 else "refuted",
        found=f"Mean AUROC of the NN with 200 pictures of noise: {activations:.1f} on activations and entropy, "
        f"{gradients:.1f} on gradients and entropy; on wrong predictions {means.mean(other, 'auroc', ['wrong']):.1f} "
        f"and {means.mean(own, 'auroc', ['wrong']):.1f}.",
    )


def _linear(means: _Means, end: str, words: str) -> Claim:
    sets, mean = means.sets(), means.mean
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


def _listed(gains: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {round(gain, 1) + 0.0:+.1f}" for name, gain in gains.items())


def _average(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
