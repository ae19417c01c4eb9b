"""Ensembles and posterior samples: aleatoric and epistemic uncertainty, agreement, and figures by number of samples."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from caveat.batches import Inputs
from caveat.metrics import calibration, proper, ranking
from caveat.metrics.tally import tally_sets
from caveat.mixture import log_mean
from caveat.observations import DRAWS, Observations, observe
from caveat.records import record
from caveat.scores import draws as scores

__all__ = ["draws", "weaker"]

COUNTS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100)
PART = 128
"""Samples that the network answers at once."""
ROWS = 20_000
"""Samples of a set that the curve over draws looks at, at most."""


def draws(evaluation: Observations, ood: Mapping[str, Observations]) -> record.Draws | None:
    """The part of a record on draws; None for a single network."""
    if DRAWS not in evaluation.probed:
        return None
    wrong = evaluation.logits.argmax(dim=1) != evaluation.labels
    parts = {
        "correct": evaluation.part((~wrong).nonzero().flatten()),
        "wrong": evaluation.part(wrong.nonzero().flatten()),
    }
    sets = [_of(name, seen) for name, seen in {**parts, **ood}.items() if len(seen)]
    known = evaluation.thinned(ROWS)
    others = {name: seen.thinned(ROWS) for name, seen in ood.items()}
    count = evaluation.probed[DRAWS].shape[1]
    counts = [k for k in COUNTS if k < count] + [count]
    return record.Draws(count=count, sets=sets, gain=[_with(k, known, others) for k in counts])


def weaker(network: nn.Module, inputs: Inputs, labels: Tensor, logits: Tensor) -> list[str]:
    """A warning if the posterior's mean prediction is clearly less accurate than the network with its own weights.

    Clearly: by 2 points or more, and by three standard errors of the difference (McNemar's: of the samples on which one
    of the two is right). Costs one forward pass of the network over `inputs`.

    Parameters
    ----------
    inputs, labels
        Some samples of the test set `(n, ...)`, `(n,)`.
    logits
        What the posterior gave for them `(n, c)`.
    """
    parts = list(zip(inputs.split(PART), labels.split(PART), strict=True))
    own = observe(network, parts, features=False).logits.argmax(dim=1) == labels
    sampled = logits.argmax(dim=1) == labels
    lost, won = int((own & ~sampled).sum()), int((sampled & ~own).sum())
    if lost - won < max(0.02 * len(labels), 3 * math.sqrt(lost + won)):
        return []
    return [
        f"The posterior's mean prediction is correct for {float(sampled.double().mean()):.1%} of the first "
        f"{len(labels)} samples, the network with its own weights for {float(own.double().mean()):.1%}: its samples do "
        "not describe this network. Was its training too short to track its weights (tradi, swag, snapshots), its "
        "scale too large, or were batch-norm statistics not renewed (--train)?"
    ]


def _of(name: str, seen: Observations) -> record.DrawsOf:
    many = _many(seen)
    return record.DrawsOf(
        set=name,
        total=float(scores.predictive_entropy(many).mean()),
        aleatoric=float(scores.expected_entropy(many).mean()),
        epistemic=float(scores.mutual_information(many).mean()),
        agreement=float(1 - scores.variation_ratio(many).mean()),
    )


def _with(count: int, known: Observations, ood: Mapping[str, Observations]) -> record.DrawsGain:
    """The figures of the first `count` draws."""
    many = _many(known)[:count]
    mean = log_mean(many)
    value = scores.predictive_entropy(many)
    return record.DrawsGain(
        draws=count,
        accuracy=float(proper.accuracy(mean.softmax(dim=1), known.labels)),
        nll=float(proper.nll(mean, known.labels)),
        ece=float(calibration.ece(calibration.confidence_bins(mean.softmax(dim=1), known.labels))),
        auroc={
            name: float(ranking.auroc(tally_sets(value, scores.predictive_entropy(_many(seen)[:count]))))
            for name, seen in ood.items()
        },
    )


def _many(seen: Observations) -> Tensor:
    return seen.probed[DRAWS].transpose(0, 1).double()
