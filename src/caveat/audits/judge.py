"""From observations and scores to the numbers of a record."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from caveat.metrics import calibration, proper, ranking, selective
from caveat.metrics.interval import Interval, interval_of_ece, interval_of_mean, intervals
from caveat.metrics.tally import Tally, compress, tally, tally_sets
from caveat.records import record
from caveat.records.record import Curve, Estimate
from caveat.sampling import evenly

__all__ = [
    "BINS",
    "KEEP",
    "QUANTILES",
    "detection",
    "detection_of",
    "misclassification",
    "misclassification_of",
    "performance",
    "score_shape",
    "sweep",
]

QUANTILES = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]
KEEP = [*(k / 100 for k in range(1, 99)), 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 1.0]
"""Shares of in-distribution data kept at the thresholds of a sweep."""
BINS = 40
CELLS = 1024
POINTS = 100


def performance(
    logits: Tensor, labels: Tensor, *, replicas: int, seed: int
) -> tuple[record.Performance, record.Reliability]:
    """How right and how well calibrated these logits are."""
    draw = _generator(seed)
    probs = logits.double().softmax(dim=1)
    bins = calibration.confidence_bins(probs, labels)
    parts = proper.brier_decomposition(probs, labels)
    summary = record.Performance(
        accuracy=_estimate(interval_of_mean(proper.right_of_each(probs, labels), generator=draw, replicas=replicas)),
        nll=_estimate(interval_of_mean(proper.nll_of_each(logits, labels), generator=draw, replicas=replicas)),
        brier=_estimate(interval_of_mean(proper.brier_of_each(probs, labels), generator=draw, replicas=replicas)),
        ece=_estimate(interval_of_ece(bins, generator=draw, replicas=replicas)),
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


def detection(score: str, ood_name: str, known: Tensor, ood: Tensor, *, replicas: int, seed: int) -> record.Detection:
    """How well a score tells `ood` from `known`."""
    return detection_of(score, ood_name, tally_sets(known, ood), replicas=replicas, seed=seed)


def detection_of(score: str, ood_name: str, counted: Tally, *, replicas: int, seed: int) -> record.Detection:
    """The same from counts."""
    metrics = {
        "auroc": ranking.auroc, "aupr_in": ranking.aupr_in, "aupr_out": ranking.aupr_out,
        "fpr_at_95_tpr": ranking.fpr_at_tpr,
    }  # fmt: skip
    found = _intervals(metrics, counted, replicas=replicas, seed=seed, stratified=True)
    return record.Detection(
        score=score,
        ood=ood_name,
        base_rate=float(counted.positive.sum() / (counted.positive.sum() + counted.negative.sum())),
        detection_error=float(ranking.detection_error(counted)),
        roc=_curve(ranking.roc_curve(counted, points=POINTS)),
        precision_recall=_curve(ranking.precision_recall_curve(counted, points=POINTS)),
        **found,
    )


def misclassification(score: str, known: Tensor, wrong: Tensor, *, replicas: int, seed: int) -> record.Selective:
    """How well a score tells wrong from correct answers; both must occur."""
    return misclassification_of(score, tally(known, wrong), replicas=replicas, seed=seed)


def misclassification_of(score: str, counted: Tally, *, replicas: int, seed: int) -> record.Selective:
    """The same from counts."""
    # AUROC needs both sides in every replica; AURC's spread includes that of the error rate itself
    found = {
        **_intervals({"auroc": ranking.auroc}, counted, replicas=replicas, seed=seed, stratified=True),
        **_intervals({"aurc": selective.aurc}, counted, replicas=replicas, seed=seed, stratified=False),
    }
    return record.Selective(
        score=score,
        e_aurc=float(selective.e_aurc(counted)),
        risk_coverage=_curve(selective.risk_coverage_curve(counted, points=POINTS)),
        **found,
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


def _intervals(
    metrics: Mapping[str, Callable[[Tally], Tensor]], counted: Tally, *, replicas: int, seed: int, stratified: bool
) -> dict[str, Estimate]:
    """Exact values; replicas are drawn from at most `CELLS` cells, which moves an interval by far less than 1 %."""
    small = compress(counted, bins=CELLS)
    drawn = intervals(metrics, small, generator=_generator(seed), replicas=replicas, stratified=stratified)
    return {
        name: Estimate(value=float(metric(counted)), low=drawn[name].low, high=drawn[name].high)
        for name, metric in metrics.items()
    }


def _thinned(values: Tensor, limit: int = 1_000_000) -> Tensor:
    """torch.quantile takes at most 16 million values; evenly spaced ranks of more are as good."""
    if len(values) <= limit:
        return values
    return values.sort().values[evenly(len(values), limit)]


def _estimate(found: Interval) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high)


def _curve(points: tuple[Tensor, Tensor]) -> Curve:
    return Curve(x=points[0].tolist(), y=points[1].tolist())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
