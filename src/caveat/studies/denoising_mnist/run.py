"""Zeros as OOD inputs of a classifier of the digits 1 to 9 that is a denoising autoencoder, too."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from caveat.guard.threshold import refusing
from caveat.models.denoising_classifier import DenoisingClassifier
from caveat.records.findings import Findings, Scale
from caveat.studies.denoising_mnist import figures
from caveat.studies.denoising_mnist.claims import DOUBT, ERROR, GRID, TOP, WORSE, Ablation, Judged
from caveat.studies.denoising_mnist.findings import told
from caveat.studies.denoising_mnist.rules import STRAIGHT, Looked, Rule, balanced, chosen, look, made, rules
from caveat.studies.denoising_mnist.training import ABLATIONS, CROSS_ENTROPY, SIZES, Sets, ablated, sets, whole
from caveat.studies.kit import common
from caveat.training import checkpoint as files

__all__ = ["run"]

BINS = 20


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, put thresholds by pseudo-OOD digits, then look at zeros; see `studies`."""
    size = SIZES[scale]
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
    say("ablations")
    changed = {name: _ablation(given, name, ablated(given, size, folder, name=name, seed=seed)) for name in ABLATIONS}
    seconds = {path.stem: _seconds(path) for path in sorted(folder.glob("*.safetensors"))}
    return told(scale, seeds, size, judged, changed, shots[0], seconds, counts=_counts(given))


def _judged(given: Sets, model: DenoisingClassifier, *, seed: int) -> Judged:
    """One seed: the rules first, from validation digits, and only then the test digits and zeros."""
    known = look(model, given.held)
    ood = made(model, given, seed=seed)
    found = rules(known, ood)
    best = chosen(found, known, ood)
    test, zeros = look(model, given.test[0]), look(model, given.zeros)
    right = test.logits.argmax(dim=1) == given.test[1]
    scores = {
        DOUBT: (test.doubt, zeros.doubt),
        ERROR: (test.error, zeros.error),
        WORSE: (_worse(known, test), _worse(known, zeros)),
    }
    return Judged(
        rules={
            name: {
                "zeros found": _percent(rule.refused(zeros)),
                "others right": _percent(~rule.refused(test) & right),
                "validation": 100 * balanced(rule, known, ood),
                "softmax below": 1 - rule.doubt,
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


def _worse(known: Looked, seen: Looked) -> Tensor:
    """The larger of two shares of validation digits: of lower uncertainty, and of lower reconstruction error."""

    def rank(reference: Tensor, values: Tensor) -> Tensor:
        ordered = reference.double().sort().values
        return torch.searchsorted(ordered, values.double()) / len(ordered)

    return torch.maximum(rank(known.doubt, seen.doubt), rank(known.error, seen.error))


def _others(test: Tensor, zeros: Tensor, right: Tensor, share: float) -> float:
    """Other digits that are accepted and right, in %, where `share` % of the zeros are refused."""
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
    """Where right, wrong and impossible answers lie; thresholds as in the whole experiment."""
    known, test, zeros = look(model, given.held), look(model, given.test[0]), look(model, given.zeros)
    right = test.logits.argmax(dim=1) == given.test[1]
    groups = {"right": test.doubt[right], "wrong": test.doubt[~right], "zeros": zeros.doubt}
    ood = made(model, given, seed=0)
    # a decoder that was never trained makes nothing: thresholds from turned and hidden digits then
    rule = Rule(rules(known, ood)[STRAIGHT].doubt)
    return Ablation(
        figures={
            "accuracy": _percent(right),
            "zeros found": _percent(rule.refused(zeros)),
            "others right": _percent(~rule.refused(test) & right),
            "AUROC": common.detection(test.doubt, zeros.doubt)["auroc"],
            "AUROC of the error": common.detection(test.error, zeros.error)["auroc"],
            **{
                f"softmax, {group}": float((1 - doubt).double().mean()) for group, doubt in groups.items() if len(doubt)
            },
        },
        histograms={group: _shares(1 - doubt) for group, doubt in groups.items() if len(doubt)},
        reconstructs=name != CROSS_ENTROPY,
    )


def _shares(confidence: Tensor) -> list[float]:
    counts = torch.histc(confidence.float(), bins=BINS, min=0, max=1)
    return (100 * counts / counts.sum()).tolist()


def _percent(mask: Tensor) -> float:
    return 100 * float(mask.double().mean())


def _seconds(checkpoint: Path) -> float:
    return sum(files.load(checkpoint)["history"]["seconds"])


def _counts(given: Sets) -> dict[str, int]:
    return {
        "training": len(given.train), "validation": len(given.held), "test, 1 to 9": len(given.test[0]),
        "test, zeros": len(given.zeros),
    }  # fmt: skip
