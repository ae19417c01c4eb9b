"""How the report, and we, decide that a digit is OOD; nothing here ever sees a zero before all is decided."""

from dataclasses import dataclass

import torch
from torch import Tensor

from caveat.data.outliers import quarter_turned
from caveat.guard.pseudo_ood import pseudo_ood
from caveat.guard.threshold import refusing
from caveat.metrics import ranking
from caveat.metrics.tally import tally_sets
from caveat.objectives.denoising import Joint
from caveat.scores.logits import msp
from caveat.scores.reconstruction import error
from caveat.studies.denoising_mnist.training import Sets

__all__ = [
    "PIPELINE",
    "QUANTILE",
    "SOFTMAX",
    "STRAIGHT",
    "Looked",
    "Made",
    "Rule",
    "balanced",
    "chosen",
    "look",
    "made",
    "rules",
]

SOFTMAX = "softmax, against digits made by the autoencoder"
PIPELINE = "softmax, or error >= the least of made ones (the report's pipeline)"
STRAIGHT = "softmax, against turned and hidden digits"
QUANTILE = 0.05


@dataclass(frozen=True)
class Looked:
    """What a network makes of a set."""

    logits: Tensor
    doubt: Tensor
    """1 - largest softmax."""
    error: Tensor
    """Mean squared reconstruction error of a pixel."""

    def part(self, rows: Tensor) -> "Looked":
        """Some of them."""
        return Looked(self.logits[rows], self.doubt[rows], self.error[rows])


@dataclass(frozen=True)
class Made:
    """Pseudo-OOD digits, from validation digits."""

    drawn: Looked
    """What the autoencoder made of turned or largely hidden digits, looked at again."""
    straight: Looked
    """Turned or largely hidden digits as they are."""
    error: Tensor
    """The autoencoder's error when it made the first: its output against the turned or whole digit."""


@dataclass(frozen=True)
class Rule:
    """An answer is refused if its uncertainty or its reconstruction error is above a threshold."""

    doubt: float
    error: float = torch.inf

    def refused(self, seen: Looked) -> Tensor:
        """Which are taken for OOD: as in the report these become zeros, and so does what is answered 0."""
        return (seen.doubt.double() > self.doubt) | (seen.error.double() > self.error) | (seen.logits.argmax(1) == 0)


def look(model: Joint, images: Tensor) -> Looked:
    """One pass."""
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for part in images.split(256):
            logits, again = model.both(part)
            parts.append((logits, error(part, again)))
    logits = torch.cat([one for one, _ in parts])
    return Looked(logits, msp(logits), torch.cat([one for _, one in parts]))


def made(model: Joint, given: Sets, *, seed: int) -> Made:
    """OOD digits from in-distribution ones, as the report makes them and in plain."""
    half = (len(given.held) + 1) // 2
    drawn = pseudo_ood(given.held, torch.Generator().manual_seed(seed), model=model)
    straight = pseudo_ood(given.held, torch.Generator().manual_seed(seed))
    # what the autoencoder was to give back; the generator is at the same place as above, so these are the same turns
    turned = quarter_turned(given.held[:half], torch.Generator().manual_seed(seed))
    target = torch.cat([turned, given.held[half:]])
    return Made(look(model, drawn), look(model, straight), error(target, drawn))


def rules(known: Looked, ood: Made) -> dict[str, Rule]:
    """The rules that are compared, all from validation digits 1 to 9 and what is made from them."""

    def best(negative: Tensor, positive: Tensor) -> float:
        return float(ranking.youden_threshold(tally_sets(negative.double(), positive.double())))

    doubt = best(known.doubt, ood.drawn.doubt)
    plain = best(known.doubt, ood.straight.doubt)
    return {
        SOFTMAX: Rule(doubt),
        PIPELINE: Rule(doubt, refusing(ood.error, 1)),
        f"softmax, or error >= the {QUANTILE:.0%} quantile of made ones": Rule(
            doubt, refusing(ood.error, 1 - QUANTILE)
        ),
        STRAIGHT: Rule(plain),
        "error, against turned and hidden digits": Rule(torch.inf, best(known.error, ood.straight.error)),
        "softmax or error, against turned and hidden digits": Rule(plain, best(known.error, ood.straight.error)),
    }


def balanced(rule: Rule, known: Looked, ood: Made) -> float:
    """Share of in-distribution digits accepted and of all pseudo-OOD ones refused, each counting half."""
    refused = torch.cat([rule.refused(ood.drawn), rule.refused(ood.straight)]).double().mean()
    return float((1 - rule.refused(known).double().mean() + refused) / 2)


def chosen(found: dict[str, Rule], known: Looked, ood: Made) -> str:
    """Name of the rule of the best balanced accuracy on validation digits."""
    return max(found, key=lambda name: balanced(found[name], known, ood))
