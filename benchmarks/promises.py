"""How often each promise of a guard is broken, in simulated data sets where the truth is known; last line JSON.

Scores are normal: of in-distribution inputs around 0, of wrong answers and of harder classes higher, of OOD inputs
around 3. Every trial draws held-out data, sets the threshold, and takes the true shares, not those of a test set.
"""

import argparse
import json
import time
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

from caveat.errors import OptionError
from caveat.guard import discoveries, refused_at_most
from caveat.guard.threshold import p_values, promise

WRONG, HARDER, OOD, OTHER = 1.5, 0.5, 3.0, 1.0
"""Means of the scores of wrong answers, of every next class, and of OOD inputs like and unlike those held out."""
MISTAKES = 0.03
SHARE = 0.1
"""OOD inputs among all."""


@dataclass(frozen=True)
class Found:
    """Trials in which a promise was made, and in which it was broken."""

    made: int
    broken: float
    allowed: float


def normal(count: int, mean: float | Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float64) + mean


def above(threshold: float, mean: float) -> float:
    return float(norm.sf(threshold - mean))


def each_class(trials: int, generator: torch.Generator) -> dict[str, float]:
    """The probability that a fresh input of a class is accepted, least over the classes; with one threshold for all."""
    sizes, kept, plain = [200, 100, 50, 15], torch.zeros(3), torch.zeros(3)
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    for _ in range(trials):
        scores = normal(len(labels), HARDER * labels, generator)
        wrong = torch.zeros(len(labels), dtype=torch.bool)
        made = promise(scores, wrong, keep=0.95, labels=labels, classes=4)
        assert made.without == (3,)
        for place, one in ((kept, made), (plain, promise(scores, wrong, keep=0.95))):
            place += torch.tensor([1 - above(one.threshold, HARDER * k) for k in range(3)]) / trials
    return {"each_class": float(kept.min()), "keep": float(plain.min())}


def false_discoveries(trials: int, generator: torch.Generator, level: float = 0.1) -> dict[str, float]:
    """Mean share of in-distribution inputs among those that are told to be OOD, and that of the refused; found OOD."""
    false = refused = found = 0.0
    batch, ood = 200, 20
    for _ in range(trials):
        known = normal(1000, 0.0, generator).sort().values
        scores = torch.cat((normal(batch - ood, 0.0, generator), normal(ood, OOD, generator)))
        p = p_values(known, scores)
        told, alone = discoveries(p, level), p <= 0.05
        false += float(told[:-ood].sum() / told.sum().clamp_min(1)) / trials
        refused += float(alone[:-ood].sum() / alone.sum().clamp_min(1)) / trials
        found += float(told[-ood:].double().mean()) / trials
    return {"fdr": false, "fdr_of_keep": refused, "found": found}


def bound_of_refusals(trials: int, generator: torch.Generator) -> Found:
    """How often the share refused exceeds its bound at any threshold."""
    broken = 0
    for _ in range(trials):
        known = normal(500, 0.0, generator).sort().values
        # just below a score the bound is least for what it bounds: these are all the places where it can break
        at = torch.nextafter(known, known - 1)
        bounds = refused_at_most(known, torch.cat((at, known[-1:])))
        truth = torch.from_numpy(norm.sf(torch.cat((at, known[-1:])).numpy()))
        broken += bool((truth > bounds).any())
    return Found(trials, broken / trials, 0.05)


def errors(trials: int, generator: torch.Generator, *, share: float | None, ood: float, count: int = 1500) -> Found:
    """How often `max_error` 0.05 is exceeded where a tenth of the inputs is OOD with this mean score."""
    made = broken = 0
    for _ in range(trials):
        wrong = torch.rand(count, generator=generator) < MISTAKES
        scores = normal(count, WRONG * wrong, generator)
        seen = None if share is None else normal(500, OOD, generator)
        try:
            held = promise(scores, wrong, max_error=0.05, against=seen, ood_share=share)
        except OptionError:
            continue
        made += 1
        right = (1 - SHARE) * (1 - MISTAKES) * (1 - above(held.threshold, 0.0))
        false = (1 - SHARE) * MISTAKES * (1 - above(held.threshold, WRONG)) + SHARE * (1 - above(held.threshold, ood))
        broken += false / (false + right) > 0.05
    return Found(made, broken / max(made, 1), 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    begun, generator = time.perf_counter(), torch.Generator().manual_seed(0)
    least = each_class(trials, generator)
    print(f"keep 0.95: the class accepted least is accepted with probability {least['keep']:.3f}; with each_class "
          f"{least['each_class']:.3f}")  # fmt: skip
    rate = false_discoveries(trials, generator)
    print(f"of what keep 0.95 refuses of a batch {rate['fdr_of_keep']:.1%} is in-distribution; of what `discoveries` "
          f"tells at 10 % {rate['fdr']:.1%}, and it finds {rate['found']:.1%} of the OOD inputs")  # fmt: skip
    bound = bound_of_refusals(trials, generator)
    print(f"refused_at_most: exceeded at some threshold in {bound.broken:.1%} of {bound.made} trials (allowed 5 %)")
    told: dict[str, Found] = {}
    for name, share, ood in (("plain", None, OOD), ("mixture", SHARE, OOD), ("others", SHARE, OTHER)):
        told[name] = errors(trials, generator, share=share, ood=ood)
        print(f"max_error 0.05, {name}: made in {told[name].made} of {trials} trials, exceeded in "
              f"{told[name].broken:.1%} of these with {SHARE:.0%} OOD inputs of mean {ood:g}")  # fmt: skip
    print(json.dumps({
        "keep": least, "discoveries": rate, "refused_at_most": bound.broken,
        "max_error": {name: one.broken for name, one in told.items()},
        "seconds": round(time.perf_counter() - begun, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
