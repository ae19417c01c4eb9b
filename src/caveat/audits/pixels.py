"""What is kept of a stream of pixels: sums of a calibration's figures, counts of a score's values."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from caveat.audits import judge, record
from caveat.audits.record import Estimate
from caveat.metrics import calibration as reliability
from caveat.metrics import proper, ranking
from caveat.metrics.interval import interval_of_ece
from caveat.metrics.tally import Tally, histogram_tally, merge

__all__ = ["Counts", "Sums"]


@dataclass
class Sums:
    """Per-pixel means of one calibration, streamed."""

    bins: reliability.Bins | None = None
    classwise: reliability.Bins | None = None
    count: int = 0
    right: float = 0.0
    nll: float = 0.0
    brier: float = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count pixels `(p, c)` with their labels `(p,)`."""
        probs = logits.double().softmax(dim=1)
        for name, found in (
            ("bins", reliability.confidence_bins(probs, labels)),
            ("classwise", reliability.classwise_bins(probs, labels)),
        ):
            before = getattr(self, name)
            setattr(self, name, found if before is None else reliability.merge(before, found))
        self.count += len(labels)
        self.right += float(proper.right_of_each(probs, labels).sum())
        self.nll += float(proper.nll_of_each(logits, labels).sum())
        self.brier += float(proper.brier_of_each(probs, labels).sum())

    def summary(self, replicas: int, seed: int) -> tuple[record.KnownSummary, record.Reliability]:
        """The figures; intervals count pixels as independent, which neighbours are not, so they are too narrow."""
        assert self.bins is not None
        assert self.classwise is not None
        found = interval_of_ece(self.bins, generator=torch.Generator().manual_seed(seed), replicas=replicas)
        parts = proper.brier_parts(self.classwise, torch.tensor(self.brier / self.count, dtype=torch.float64))
        fine = reliability.regroup(self.bins)

        def flat(total: float) -> Estimate:
            return Estimate(value=total / self.count, low=total / self.count, high=total / self.count)

        diagram = reliability.reliability(self.bins)
        summary = record.KnownSummary(
            accuracy=flat(self.right), nll=flat(self.nll), brier=flat(self.brier),
            ece=Estimate(value=found.value, low=found.low, high=found.high),
            ece_equal_mass=float(reliability.ece(fine)), ece_classwise=float(reliability.ece(self.classwise).mean()),
            mce=float(reliability.mce(self.bins)), mean_confidence=float(reliability.mean_confidence(self.bins)),
            brier_calibration=float(parts.calibration), brier_refinement=float(parts.refinement),
            brier_uncertainty=float(parts.uncertainty),
        )  # fmt: skip
        return summary, record.Reliability(
            confidence=diagram.confidence.tolist(), accuracy=diagram.accuracy.tolist(), share=diagram.share.tolist()
        )


@dataclass
class Counts:
    """Values of one score over the right, the wrong and each kind of unknown pixels, in bins."""

    edges: Tensor
    tallies: dict[str, Tally] = field(default_factory=dict)
    """`wrong`: right pixels negative, wrong ones positive; a kind: known pixels negative, its pixels positive."""

    def add(self, values: Tensor, positive: Tensor, name: str) -> None:
        """Count pixels `(p,)`."""
        found = histogram_tally(values, positive, edges=self.edges)
        self.tallies[name] = merge(self.tallies[name], found) if name in self.tallies else found

    def present(self) -> dict[str, Tally]:
        """The tallies of which both sides occur."""
        return {name: t for name, t in self.tallies.items() if float(t.negative.sum()) and float(t.positive.sum())}

    def shape(self) -> dict[str, object]:
        """Quantiles and histogram, as a record's score has them."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        edges = torch.linspace(low, high if high > low else low + 1, judge.BINS + 1, dtype=torch.float64)
        own = self.tallies["wrong"]
        sides = {"correct": own.negative, "wrong": own.positive}
        sides |= {name: t.positive for name, t in self.tallies.items() if name != "wrong"}
        sides = {name: counts for name, counts in sides.items() if float(counts.sum())}
        histogram, quantiles = {}, {}
        finite = own.values.clamp(low, high)
        for name, counts in sides.items():
            share = counts.cumsum(0) / counts.sum()
            steps = torch.cat([torch.zeros(1).double(), share])[torch.searchsorted(finite, edges[1:-1], right=True)]
            bounds = torch.cat([torch.zeros(1).double(), steps, torch.ones(1).double()])
            histogram[name] = bounds.diff().clamp_min(0).tolist()
            where = torch.searchsorted(share, torch.tensor(judge.QUANTILES, dtype=torch.float64) - 1e-12)
            quantiles[name] = finite[where.clamp_max(len(finite) - 1)].tolist()
        return {"edges": edges.tolist(), "histogram": histogram, "quantiles": quantiles}

    def sweep(self, score: str) -> record.Sweep:
        """What a row of thresholds accepts."""
        own = self.tallies["wrong"]
        share = (own.negative + own.positive).cumsum(0)
        share = share / share[-1]
        cells = torch.searchsorted(share, torch.tensor(judge.KEEP, dtype=torch.float64) - 1e-12).unique()
        thresholds = own.values.clamp_max(float(self.edges[-1]))[cells.clamp_max(len(share) - 1)].unique()
        total = float((own.negative + own.positive).sum())

        def upto(counts: Tensor, whole: float) -> list[float]:
            below = torch.cat([torch.zeros(1).double(), counts.cumsum(0)])
            return (below[torch.searchsorted(own.values, thresholds, right=True)] / whole).tolist()

        kinds = {name: t for name, t in self.present().items() if name != "wrong"}
        return record.Sweep(
            score=score, thresholds=thresholds.tolist(), kept_correct=upto(own.negative, total),
            kept_wrong=upto(own.positive, total),
            passed={name: ranking.shares_accepted(t, thresholds)[1].tolist() for name, t in kinds.items()},
        )  # fmt: skip
