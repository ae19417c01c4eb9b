"""From observations and scores to the numbers of a record."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from caveat.metrics import calibration, proper, ranking, selective
from caveat.metrics.interval import Interval, interval_of_ece, interval_of_mean, interval_of_share
from caveat.metrics.interval_of_tally import interval_of_fpr, interval_of_ranking, interval_of_selective
from caveat.metrics.tally import Tally, tally, tally_sets
from caveat.records import record
from caveat.records.record import Curve, Estimate
from caveat.sampling import evenly

__all__ = [
    "BINS",
    "KEEP",
    "QUANTILES",
    "detection",
    "detection_of",
    "estimate",
    "mean",
    "misclassification",
    "misclassification_of",
    "performance",
    "ranked",
    "score_shape",
    "share",
    "sweep",
]

QUANTILES = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]
KEEP = [*(k / 100 for k in range(1, 99)), 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 1.0]
"""Shares of in-distribution data kept at the thresholds of a sweep."""
BINS = 40
POINTS = 100


def performance(
    logits: Tensor, labels: Tensor, *, replicas: int, seed: int
) -> tuple[record.Performance, record.Reliability]:
    """How right and how well calibrated these logits are."""
    probs = logits.double().softmax(dim=1)
    bins = calibration.confidence_bins(probs, labels)
    parts = proper.brier_decomposition(probs, labels)
    right = proper.right_of_each(probs, labels)
    share = interval_of_share(int(right.sum()), len(right))
    error = interval_of_ece(bins, generator=torch.Generator().manual_seed(seed), replicas=replicas)
    summary = record.Performance(
        accuracy=estimate(share.value, share),
        nll=mean(proper.nll_of_each(logits, labels)),
        brier=mean(proper.brier_of_each(probs, labels)),
        ece=estimate(error.value, error),
        ece_equal_mass=float(calibration.ece_equal_mass(probs, labels)),
        ece_classwise=float(calibration.ece_classwise(probs, labels)),
        mce=float(calibration.mce(bins)),
        mean_confidence=float(calibration.mean_confidence(bins)),
        brier_calibration=float(parts.calibration),
        brier_refinement=float(parts.refinement),
        brier_uncertainty=float(parts.uncertainty),
    )
    diagram = calibration.reliability(bins)
    return summary, record.Reliability(
        confidence=diagram.confidence.tolist(), accuracy=diagram.accuracy.tolist(), share=diagram.share.tolist()
    )


def detection(score: str, ood_name: str, known: Tensor, ood: Tensor) -> record.Detection:
    """How well a score tells `ood` from `known`."""
    return detection_of(score, ood_name, tally_sets(known, ood))


def detection_of(score: str, ood_name: str, counted: Tally) -> record.Detection:
    """The same from counts."""
    return record.Detection(
        score=score,
        ood=ood_name,
        auroc=ranked(ranking.auroc, counted),
        aupr_in=ranked(ranking.aupr_in, counted),
        aupr_out=ranked(ranking.aupr_out, counted),
        fpr_at_95_tpr=estimate(float(ranking.fpr_at_tpr(counted)), interval_of_fpr(counted)),
        base_rate=float(counted.positive.sum() / (counted.positive.sum() + counted.negative.sum())),
        detection_error=float(ranking.detection_error(counted)),
        roc=_curve(ranking.roc_curve(counted, points=POINTS)),
        precision_recall=_curve(ranking.precision_recall_curve(counted, points=POINTS)),
    )


def misclassification(score: str, known: Tensor, wrong: Tensor) -> record.Selective:
    """How well a score tells wrong from correct answers; both must occur."""
    return misclassification_of(score, tally(known, wrong))


def misclassification_of(score: str, counted: Tally) -> record.Selective:
    """The same from counts."""
    return record.Selective(
        score=score,
        auroc=ranked(ranking.auroc, counted),
        aurc=estimate(float(selective.aurc(counted)), interval_of_selective(selective.aurc, counted)),
        e_aurc=float(selective.e_aurc(counted)),
        risk_coverage=_curve(selective.risk_coverage_curve(counted, points=POINTS)),
    )


def sweep(score: str, known: Tensor, wrong: Tensor, ood: Mapping[str, Tensor]) -> record.Sweep:
    """What a row of thresholds accepts; they are quantiles of the in-distribution data's scores."""
    ordered = known.sort().values
    ranks = (torch.tensor(KEEP, dtype=torch.float64) * len(known) - 1e-9).ceil().long().clamp(1, len(known)) - 1
    thresholds = ordered[ranks].unique()

    def accepted(values: Tensor, of: int) -> list[float]:
        ascending = values.sort().values
        return (torch.searchsorted(ascending, thresholds, right=True).double() / of).tolist()

    return record.Sweep(
        score=score,
        thresholds=thresholds.tolist(),
        accepted_correct=accepted(known[~wrong], len(known)),
        accepted_wrong=accepted(known[wrong], len(known)),
        accepted_ood={name: accepted(values, len(values)) for name, values in ood.items()},
    )


def score_shape(known: Tensor, wrong: Tensor, ood: Mapping[str, Tensor]) -> dict[str, object]:
    """Quantiles and histogram of a score over the sets; the outermost bins hold all that lies beyond."""
    parts = {"correct": known[~wrong], "wrong": known[wrong], **ood}
    parts = {name: values for name, values in parts.items() if len(values)}
    low = min(float(values.quantile(0.005)) for values in map(_thinned, parts.values()))
    high = max(float(values.quantile(0.995)) for values in map(_thinned, parts.values()))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)

    def shares(values: Tensor) -> list[float]:
        cells = torch.bucketize(values, edges[1:-1])
        return (torch.bincount(cells, minlength=BINS).double() / len(values)).tolist()

    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    return {
        "quantiles": {name: _thinned(values).quantile(levels).tolist() for name, values in parts.items()},
        "edges": edges.tolist(),
        "histogram": {name: shares(values) for name, values in parts.items()},
    }


def _thinned(values: Tensor, limit: int = 1_000_000) -> Tensor:
    """torch.quantile takes at most 16 million values; evenly spaced ranks of more are as good."""
    if len(values) <= limit:
        return values
    return values.sort().values[evenly(len(values), limit)]


def estimate(value: float, found: Interval | None) -> Estimate:
    """The value; its interval unless there are too few samples to give one."""
    return Estimate(value=value, low=found.low if found else None, high=found.high if found else None)


def mean(losses: Tensor) -> Estimate:
    """The mean of losses of at least 0, with its interval."""
    return estimate(float(losses.mean()), interval_of_mean(losses))


def ranked(metric: Callable[[Tally], Tensor], counted: Tally) -> Estimate:
    """A metric of `metrics.OF_RANKING` with its interval."""
    return estimate(float(metric(counted)), interval_of_ranking(metric, counted))


def _curve(points: tuple[Tensor, Tensor]) -> Curve:
    return Curve(x=points[0].tolist(), y=points[1].tolist())


def share(hits: Tensor) -> Estimate:
    """A share with Wilson's 95 % interval."""
    return estimate(float(hits.double().mean()), interval_of_share(int(hits.sum()), len(hits)))
