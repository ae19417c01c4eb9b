"""Zeros as OOD inputs of a classifier of the digits 1 to 9 that is a denoising autoencoder, too."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from caveat.calibration import keeping_threshold
from caveat.data.outliers import quarter_turned
from caveat.guard.pseudo_ood import pseudo_ood
from caveat.guard.threshold import refusing
from caveat.metrics import ranking
from caveat.metrics.tally import tally_sets
from caveat.models.denoising_classifier import DenoisingClassifier
from caveat.objectives.denoising import Joint
from caveat.records.findings import Findings, Scale
from caveat.scores.logits import msp
from caveat.scores.reconstruction import error
from caveat.studies.denoising_mnist import figures
from caveat.studies.denoising_mnist.findings import (
    ERROR,
    GRID,
    PIPELINE,
    QUANTILE,
    RECONSTRUCTED,
    SOFTMAX,
    STRAIGHT,
    TOP,
    WORSE,
    Ablation,
    Judged,
    conclude,
)  # fmt: skip
from caveat.studies.denoising_mnist.training import (
    ABLATIONS,
    CROSS_ENTROPY,
    FRESH,
    KEPT,
    SIZES,
    Sets,
    Size,
    ablated,
    improved,
    sets,
    whole,
)
from caveat.studies.kit import common
from caveat.studies.kit import folder as folders
from caveat.training import checkpoint

__all__ = ["Looked", "Pseudo", "Rule", "balanced", "chosen", "look", "pseudo", "rules", "run"]

BINS = 20


@dataclass(frozen=True)
class Looked:
    """What one pass over a set gives."""

    logits: Tensor
    uncertainty: Tensor
    """1 - largest softmax probability."""
    error: Tensor
    """Mean squared reconstruction error of a pixel."""

    def part(self, rows: Tensor) -> "Looked":
        """Some of them."""
        return Looked(self.logits[rows], self.uncertainty[rows], self.error[rows])


@dataclass(frozen=True)
class Pseudo:
    """Pseudo-OOD digits, from validation digits."""

    drawn: Looked
    """Reconstructions of rotated or largely occluded digits, passed through the network again."""
    straight: Looked
    """Rotated or largely occluded digits as they are."""
    error: Tensor
    """Of those reconstructions, against the rotated or whole digit."""


@dataclass(frozen=True)
class Rule:
    """A prediction is rejected if its uncertainty or its reconstruction error is above a threshold."""

    uncertainty: float
    error: float = torch.inf

    def rejected(self, seen: Looked) -> Tensor:
        """Which are taken for OOD: in the report these become zeros, and so does what is classified as 0."""
        return (
            (seen.uncertainty.double() > self.uncertainty)
            | (seen.error.double() > self.error)
            | (seen.logits.argmax(1) == 0)
        )


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, set thresholds by pseudo-OOD digits, then look at zeros; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="denoising-mnist", scale=scale, seed=seed, size=size)
    given = sets(scale, size)
    seeds = [seed + number for number in range(size.seeds)]
    judged: list[Judged] = []
    shots: list[figures.Shots] = []
    for one in seeds:
        say(f"seed {one}: training")
        model = whole(given, size, folder, seed=one)
        say(f"seed {one}: judging")
        judged.append(_judged(given, model, seed=one))
        if not shots:
            shots.append(figures.shots(model, given, seed=one))
    fresh = [seed + FRESH + number for number in range(size.fresh)]
    say("the improved pipeline")
    better: list[dict[str, float]] = [
        folders.stored(folder / f"improved-seed-{one}.json", partial(_improved, given, size, folder, seed=one))
        for one in fresh
    ]
    say("ablations")
    changed = {name: _ablation(given, name, ablated(given, size, folder, name=name, seed=seed)) for name in ABLATIONS}
    seconds = {path.stem: checkpoint.seconds(path) for path in sorted(folder.glob("*.safetensors"))}
    return conclude(scale, seeds, size, judged, changed, shots[0], seconds, counts=_counts(given), better=better)


def _judged(given: Sets, model: DenoisingClassifier, *, seed: int) -> Judged:
    """One seed: the rules first, from validation digits, and only then the test digits and zeros."""
    inside = look(model, given.held)
    ood = pseudo(model, given, seed=seed)
    found = rules(inside, ood)
    best = chosen(found, inside, ood)
    test, zeros = look(model, given.test[0]), look(model, given.zeros)
    right = test.logits.argmax(dim=1) == given.test[1]
    scores = {
        SOFTMAX: (test.uncertainty, zeros.uncertainty),
        ERROR: (test.error, zeros.error),
        WORSE: (_worse(inside, test), _worse(inside, zeros)),
    }
    return Judged(
        rules={
            name: {
                "zeros detected": _percent(rule.rejected(zeros)),
                "others correct": _percent(~rule.rejected(test) & right),
                "validation": 100 * balanced(rule, inside, ood),
                "softmax below": 1 - rule.uncertainty,
                "error above": rule.error,
            }
            for name, rule in found.items()
        },
        chosen=best,
        accuracy=_percent(right),
        ranked={name: common.detection(*pair) for name, pair in scores.items()},
        curves={name: [_others(*pair, right, share) for share in GRID] for name, pair in scores.items()},
        errors=_errors(given, test, zeros),
    )


def _improved(given: Sets, size: Size, folder: Path, *, seed: int) -> dict[str, float]:
    """The improved pipeline: a threshold from validation digits alone, then test digits and zeros."""
    model = improved(given, size, folder, seed=seed)
    rule = Rule(keeping_threshold(look(model, given.held).uncertainty.double(), KEPT))
    test, zeros = look(model, given.test[0]), look(model, given.zeros)
    right = test.logits.argmax(dim=1) == given.test[1]
    return {
        "zeros detected": _percent(rule.rejected(zeros)),
        "others correct": _percent(~rule.rejected(test) & right),
        "accuracy": _percent(right),
        "AUROC": common.detection(test.uncertainty, zeros.uncertainty)["auroc"],
        "softmax below": 1 - rule.uncertainty,
    }


def _worse(inside: Looked, seen: Looked) -> Tensor:
    """The larger of two shares of validation digits: of lower uncertainty, and of lower reconstruction error."""

    def rank(reference: Tensor, values: Tensor) -> Tensor:
        ordered = reference.double().sort().values
        return torch.searchsorted(ordered, values.double()) / len(ordered)

    return torch.maximum(rank(inside.uncertainty, seen.uncertainty), rank(inside.error, seen.error))


def _others(test: Tensor, zeros: Tensor, right: Tensor, share: float) -> float:
    """Other digits that are accepted and correct, in %, where `share` % of the zeros are rejected."""
    return _percent((test.double() <= refusing(zeros, share / 100)) & right)


def _errors(given: Sets, test: Looked, zeros: Looked) -> dict[int, dict[str, float]]:
    """Reconstruction error of each digit, zeros too, and how many are among the largest."""
    values = torch.cat([zeros.error, test.error]).double()
    labels = torch.cat([torch.zeros(len(zeros.error), dtype=torch.int64), given.test[1]])
    top = labels[values.argsort(descending=True)[:TOP]]
    found: dict[int, dict[str, float]] = {}
    for digit in range(10):
        low, middle, high = torch.quantile(values[labels == digit], torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
        found[digit] = {"10 %": low, "median": middle, "90 %": high, "largest": float((top == digit).sum())}
    return found


def _ablation(given: Sets, name: str, model: DenoisingClassifier) -> Ablation:
    """Confidence of correct and wrong predictions and of zeros; the threshold as in the whole experiment."""
    inside, test, zeros = look(model, given.held), look(model, given.test[0]), look(model, given.zeros)
    right = test.logits.argmax(dim=1) == given.test[1]
    groups = {"correct": test.uncertainty[right], "wrong": test.uncertainty[~right], "zeros": zeros.uncertainty}
    ood = pseudo(model, given, seed=0)
    # a decoder that was never trained reconstructs nothing: the threshold is from rotated and occluded digits
    rule = Rule(rules(inside, ood)[STRAIGHT].uncertainty)
    return Ablation(
        figures={
            "accuracy": _percent(right),
            "zeros detected": _percent(rule.rejected(zeros)),
            "others correct": _percent(~rule.rejected(test) & right),
            "AUROC": common.detection(test.uncertainty, zeros.uncertainty)["auroc"],
            "AUROC of the error": common.detection(test.error, zeros.error)["auroc"],
            **{
                f"softmax, {group}": float((1 - values).double().mean())
                for group, values in groups.items()
                if len(values)
            },
        },
        histograms={group: _shares(1 - values) for group, values in groups.items() if len(values)},
        reconstructs=name != CROSS_ENTROPY,
    )


def _shares(confidence: Tensor) -> list[float]:
    counts = torch.histc(confidence.float(), bins=BINS, min=0, max=1)
    return (100 * counts / counts.sum()).tolist()


def _percent(mask: Tensor) -> float:
    return 100 * float(mask.double().mean())


def _counts(given: Sets) -> dict[str, int]:
    return {
        "training": len(given.train), "validation": len(given.held), "test, 1 to 9": len(given.test[0]),
        "test, zeros": len(given.zeros),
    }  # fmt: skip


def look(model: Joint, images: Tensor) -> Looked:
    """One pass."""
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for part in images.split(256):
            logits, again = model.both(part)
            parts.append((logits, error(part, again)))
    logits = torch.cat([one for one, _ in parts])
    return Looked(logits, msp(logits), torch.cat([one for _, one in parts]))


def pseudo(model: Joint, given: Sets, *, seed: int) -> Pseudo:
    """Pseudo-OOD digits from in-distribution ones: reconstructed, as the report makes them, and as they are."""
    half = (len(given.held) + 1) // 2
    drawn = pseudo_ood(given.held, torch.Generator().manual_seed(seed), model=model)
    straight = pseudo_ood(given.held, torch.Generator().manual_seed(seed))
    # the autoencoder's target; the generator is at the same place as above, so these are the same rotations
    turned = quarter_turned(given.held[:half], torch.Generator().manual_seed(seed))
    target = torch.cat([turned, given.held[half:]])
    return Pseudo(look(model, drawn), look(model, straight), error(target, drawn))


def rules(inside: Looked, ood: Pseudo) -> dict[str, Rule]:
    """The rules that are compared, all from validation digits 1 to 9 and pseudo-OOD digits made from them."""

    def best(negative: Tensor, positive: Tensor) -> float:
        return float(ranking.youden_threshold(tally_sets(negative.double(), positive.double())))

    reconstructed = best(inside.uncertainty, ood.drawn.uncertainty)
    plain = best(inside.uncertainty, ood.straight.uncertainty)
    worst = best(inside.error, ood.straight.error)
    return {
        RECONSTRUCTED: Rule(reconstructed),
        PIPELINE: Rule(reconstructed, refusing(ood.error, 1)),
        f"softmax, or error >= the {QUANTILE:.0%} quantile of reconstructions": Rule(
            reconstructed, refusing(ood.error, 1 - QUANTILE)
        ),
        STRAIGHT: Rule(plain),
        "error, against rotated and occluded digits": Rule(torch.inf, worst),
        "softmax or error, against rotated and occluded digits": Rule(plain, worst),
    }


def balanced(rule: Rule, inside: Looked, ood: Pseudo) -> float:
    """Share of in-distribution digits accepted and of all pseudo-OOD ones rejected, each counting half."""
    rejected = torch.cat([rule.rejected(ood.drawn), rule.rejected(ood.straight)]).double().mean()
    return float((1 - rule.rejected(inside).double().mean() + rejected) / 2)


def chosen(found: dict[str, Rule], inside: Looked, ood: Pseudo) -> str:
    """Name of the rule of the best balanced accuracy on validation digits."""
    return max(found, key=lambda name: balanced(found[name], inside, ood))
