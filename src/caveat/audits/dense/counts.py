"""What is kept of a stream of pixels: sums of a calibration's figures, counts of a score's values."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caveat.audits import judge
from caveat.metrics import calibration as reliability
from caveat.metrics import proper, ranking
from caveat.metrics.interval import FEW, interval_of_ece, t_quantile, wilson
from caveat.metrics.tally import Tally
from caveat.records import record
from caveat.records.record import Estimate

__all__ = ["Counts", "Reservoir", "Sums", "groups"]


def groups(labels: Tensor, predicted: Tensor, void: int | None, kinds: Sequence[Tensor]) -> Tensor:
    """What each pixel is: 0 known and right, 1 known and wrong, 2 + k of the k-th OOD kind, -1 void."""
    found = (predicted != labels).long()
    for number, values in enumerate(kinds):
        found[torch.isin(labels, values)] = 2 + number
    if void is not None:
        found[labels == void] = -1
    return found


@dataclass
class Reservoir:
    """Rows evenly spread over a stream of OOD length: every `step`-th, and every other one when they get many."""

    most: int
    step: int = 1
    seen: int = 0
    rows: list[tuple[Tensor, ...]] = field(default_factory=list)
    held: int = 0

    def add(self, *columns: Tensor) -> None:
        """Rows of several tensors that belong together."""
        first = -self.seen % self.step
        kept = tuple(column[first :: self.step] for column in columns)
        self.seen += len(columns[0])
        self.rows.append(kept)
        self.held += len(kept[0])
        while self.held > 2 * self.most:
            self.step *= 2
            whole = tuple(torch.cat(parts)[::2] for parts in zip(*self.rows, strict=True))
            self.rows, self.held = [whole], len(whole[0])

    def columns(self) -> tuple[Tensor, ...]:
        """All that is held, in the stream's order."""
        return tuple(torch.cat(parts) for parts in zip(*self.rows, strict=True))


@dataclass
class Sums:
    """Per-pixel means of one calibration, streamed."""

    bins: reliability.Bins | None = None
    classwise: reliability.Bins | None = None
    pictures: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Of each picture the number of pixels, and the sums of right ones, NLL and Brier scores."""

    @property
    def count(self) -> int:
        """Number of pixels."""
        return int(sum(picture[0] for picture in self.pictures))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count the pixels `(p, c)` of one picture with their labels `(p,)`."""
        probs = logits.double().softmax(dim=1)
        for name, found in (
            ("bins", reliability.confidence_bins(probs, labels)),
            ("classwise", reliability.classwise_bins(probs, labels)),
        ):
            before = getattr(self, name)
            setattr(self, name, found if before is None else reliability.merge(before, found))
        each = (
            proper.right_of_each(probs, labels), proper.nll_of_each(logits, labels), proper.brier_of_each(probs, labels)
        )  # fmt: skip
        right, nll, brier = (float(values.double().sum()) for values in each)
        self.pictures.append((float(len(labels)), right, nll, brier))

    def nbytes(self) -> int:
        """Size of what is kept."""
        kept = [bins for bins in (self.bins, self.classwise) if bins is not None]
        return sum(t.nbytes for bins in kept for t in (bins.count, bins.confidence, bins.hits)) + 32 * len(
            self.pictures
        )

    def summary(self, replicas: int, seed: int) -> tuple[record.Performance, record.Reliability]:
        """The figures. Intervals of accuracy, NLL and Brier score are over pictures; that of the ECE counts pixels as
        independent, which neighbours are not, so it is too narrow.
        """
        assert self.bins is not None
        assert self.classwise is not None
        found = interval_of_ece(self.bins, generator=torch.Generator().manual_seed(seed), replicas=replicas)
        sizes, right, nll, brier = torch.tensor(self.pictures, dtype=torch.float64).T
        parts = proper.brier_parts(self.classwise, brier.sum() / sizes.sum())
        fine = reliability.regroup(self.bins)
        diagram = reliability.reliability(self.bins)
        summary = record.Performance(
            accuracy=_over_pictures(right, sizes, share=True), nll=_over_pictures(nll, sizes),
            brier=_over_pictures(brier, sizes),
            ece=Estimate(value=found.value, low=found.low, high=found.high),
            ece_equal_mass=float(reliability.ece(fine)), ece_classwise=float(reliability.ece(self.classwise).mean()),
            mce=float(reliability.mce(self.bins)), mean_confidence=float(reliability.mean_confidence(self.bins)),
            brier_calibration=float(parts.calibration), brier_refinement=float(parts.refinement),
            brier_uncertainty=float(parts.uncertainty),
        )  # fmt: skip
        return summary, record.Reliability(
            confidence=diagram.confidence.tolist(), accuracy=diagram.accuracy.tolist(), share=diagram.share.tolist()
        )


def _over_pictures(sums: Tensor, sizes: Tensor, *, share: bool = False) -> Estimate:
    """The mean over all pixels; pictures, not pixels, are the independent samples behind its interval.

    The spread of a ratio of sums, to first order (as the jackknife over pictures), with Student's quantile; of a share
    Wilson's interval. None where there are few pictures, or all are alike.
    """
    count, value = len(sums), float(sums.sum() / sizes.sum())
    if count < FEW:
        return Estimate(value=value, low=None, high=None)
    variance = float(((sums - value * sizes) / sizes.mean()).var()) / count
    if variance == 0:
        return Estimate(value=value, low=None, high=None)
    quantile = t_quantile(count - 1, 0.95)
    if share:
        found = wilson(value, value * (1 - value) / variance, quantile)
        return Estimate(value=value, low=found.low, high=found.high)
    half = quantile * variance**0.5
    return Estimate(value=value, low=max(0.0, value - half), high=value + half)


@dataclass
class Counts:
    """Values of one score in bins, counted by what the pixel is (`groups`)."""

    edges: Tensor
    kinds: tuple[str, ...]
    """Names of the OOD kinds."""
    table: Tensor = field(default_factory=lambda: torch.empty(0))
    """`(2 + kinds, bins)`: right, wrong and each kind."""
    total: Tensor = field(default_factory=lambda: torch.empty(0))
    """`(2 + kinds,)`: sums of the score."""

    def __post_init__(self) -> None:
        self.table = torch.zeros(2 + len(self.kinds), len(self.edges) + 1, dtype=torch.float64)
        self.total = torch.zeros(2 + len(self.kinds), dtype=torch.float64)

    def add(self, values: Tensor, group: Tensor) -> None:
        """Count pixels `(p,)`; those of group -1 are left out."""
        rows, cells = self.table.shape
        kept = group >= 0
        values, group = values[kept].double(), group[kept]
        place = torch.bucketize(values, self.edges) + cells * group
        self.table += place.bincount(minlength=rows * cells).reshape(rows, cells)
        self.total.index_add_(0, group, values)

    def tally(self, name: str) -> Tally:
        """`wrong`: right pixels negative, wrong ones positive; a kind: known pixels negative, its own positive."""
        values = torch.cat([self.edges, self.edges.new_full((1,), torch.inf)])
        if name == "wrong":
            return Tally(values, self.table[0], self.table[1])
        return Tally(values, self.table[0] + self.table[1], self.table[2 + self.kinds.index(name)])

    def present(self) -> dict[str, Tally]:
        """The tallies of which both sides occur."""
        tallies = {name: self.tally(name) for name in ("wrong", *self.kinds)}
        return {name: t for name, t in tallies.items() if float(t.negative.sum()) and float(t.positive.sum())}

    def mean(self, side: str) -> float | None:
        """Mean score of the `correct` or `wrong` pixels or of a kind; None if there are none."""
        row = ("correct", "wrong", *self.kinds).index(side)
        count = float(self.table[row].sum())
        return float(self.total[row]) / count if count else None

    def nbytes(self) -> int:
        """Size of what is kept."""
        return self.edges.nbytes + self.table.nbytes + self.total.nbytes

    def shape(self) -> dict[str, object]:
        """Quantiles and histogram, as a record's score has them."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        edges = torch.linspace(low, high if high > low else low + 1, judge.BINS + 1, dtype=torch.float64)
        sides = dict(zip(("correct", "wrong", *self.kinds), self.table, strict=True))
        sides = {name: counts for name, counts in sides.items() if float(counts.sum())}
        histogram, quantiles = {}, {}
        finite = torch.cat([self.edges, self.edges[-1:]])
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
        own = self.tally("wrong")
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
            score=score, thresholds=thresholds.tolist(), accepted_correct=upto(own.negative, total),
            accepted_wrong=upto(own.positive, total),
            accepted_ood={name: ranking.shares_accepted(t, thresholds)[1].tolist() for name, t in kinds.items()},
        )  # fmt: skip
