"""How well a score ranks the OOD above the in-distribution (or the wrong above the correct answers).

Every metric is a function of a `Tally`; ties count half; a leading axis of bootstrap replicas is kept. The positive
side is the OOD, with the higher scores.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from caveat.metrics import _check
from caveat.metrics._curve import simplify
from caveat.metrics.tally import Tally, compress

__all__ = [
    "aupr_in",
    "aupr_out",
    "auroc",
    "detection_error",
    "fpr_at_tpr",
    "precision_recall_curve",
    "quantile_threshold",
    "roc_curve",
    "shares_accepted",
    "youden_threshold",
]

_SLACK = 1e-12
"""Relative: 0.07 * 100 is 7.000000000000001, and 7 samples are 7 % of 100 all the same."""


def auroc(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Area under the ROC curve: the chance that an OOD sample scores above an in-distribution one, ties half.

    For ranking as a whole, whatever the threshold and the share of OOD inputs; it hides what happens at the one
    threshold that is used (see `fpr_at_tpr`).

    Formula: P(s⁺ > s⁻) + ½ P(s⁺ = s⁻), in [0, 1]; 0.5 is chance, higher is better.

    Raises
    ------
    DataError
        If one side is empty (as all ranking metrics).

    Source: J. A. Hanley, B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982).

    Examples
    --------
    >>> from caveat.metrics.tally import tally_sets
    >>> auroc(tally_sets(torch.tensor([0.1, 0.2]), torch.tensor([0.2, 0.9]))).item()  # 3.5 of 4 pairs
    0.875
    """
    _check.both_sides(counted.negative, counted.positive, "auroc")
    below = counted.negative.cumsum(-1) - counted.negative / 2
    return (counted.positive * below).sum(-1) / (counted.negative.sum(-1) * counted.positive.sum(-1))


def aupr_out(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Average precision of finding the OOD: positive = OOD, the highest scores first.

    Formula: Σ_k (R_k − R_{k−1}) P_k over the distinct thresholds (no interpolation; as scikit-learn's
    `average_precision_score`). In ]0, 1]; a useless score has the share of the OOD inputs: always read it beside that.

    Source: D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
    networks, ICLR 2017 (AUPR-Out).
    """
    _check.both_sides(counted.negative, counted.positive, "aupr_out")
    return _average_precision(counted.positive.flip(-1), counted.negative.flip(-1))


def aupr_in(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Average precision of finding the in-distribution: positive = in-distribution, the lowest scores first.

    Formula: as `aupr_out`, with the sides exchanged.

    Source: D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
    networks, ICLR 2017 (AUPR-In).
    """
    _check.both_sides(counted.negative, counted.positive, "aupr_in")
    return _average_precision(counted.negative, counted.positive)


def fpr_at_tpr(counted: Tally, tpr: float = 0.95) -> Float64[Tensor, "*replicas"]:
    """Share of the OOD inputs that are accepted when at least the share `tpr` of in-distribution inputs is.

    Formula: P(s⁺ <= τ), τ the smallest score with P(s⁻ <= τ) >= tpr (`quantile_threshold`); scores that equal it are
    accepted on both sides. In [0, 1], lower is better; a useless score has `tpr`.

    Conventions differ. The positive class of the TPR is the in-distribution one here, as in the papers on OOD
    detection; `mirror` the tally for the other (95 % of the OOD inputs are rejected, share of in-distribution ones that
    is too). ACET's code takes the 5 % percentile by linear interpolation between two in-distribution scores, so that it
    may keep one in-distribution sample less; on sets of thousands that is the last digit only.

    Raises
    ------
    DataError
        If one side is empty.
    OptionError
        If `tpr` is not in ]0, 1].

    Source: S. Liang, Y. Li, R. Srikant, Enhancing the reliability of out-of-distribution image detection in neural
    networks, ICLR 2018, section 4.2.

    Examples
    --------
    >>> from caveat.metrics.tally import tally_sets
    >>> known, ood = torch.arange(20.0), torch.tensor([3.0, 18.0, 18.5, 40.0])
    >>> fpr_at_tpr(tally_sets(known, ood)).item()  # 19 of 20 in-distribution scores are at or below 18
    0.5
    """
    _check.both_sides(counted.negative, counted.positive, "fpr_at_tpr")
    passed = counted.positive.cumsum(-1).gather(-1, _threshold_cell(counted, tpr, "tpr"))
    return passed.squeeze(-1) / counted.positive.sum(-1)


def detection_error(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Least share of wrong decisions over all thresholds when in-distribution and OOD are equally frequent.

    Formula: min_τ ½ P(s⁻ > τ) + ½ P(s⁺ <= τ), in [0, 0.5]; lower is better, 0.5 is chance.

    Source: S. Liang, Y. Li, R. Srikant, Enhancing the reliability of out-of-distribution image detection in neural
    networks, ICLR 2018, section 4.2 (there at 95 % TPR; the minimum over all thresholds as in K. Lee et al., NeurIPS
    2018).
    """
    _check.both_sides(counted.negative, counted.positive, "detection_error")
    kept, passed = _cumulative(counted.negative), _cumulative(counted.positive)
    return ((1 - kept + passed) / 2).amin(-1)


def quantile_threshold(counted: Tally, keep: float = 0.95) -> Float64[Tensor, "*replicas"]:
    """The smallest score that, as a threshold, accepts at least the share `keep` of the negatives (score <= threshold).

    Of a histogram it is the upper edge of a bin, infinite if all of the bins with an edge do not hold enough.

    Raises
    ------
    DataError
        If there are no negatives.
    OptionError
        If `keep` is not in ]0, 1].
    """
    _check.both_sides(counted.negative, counted.negative, "quantile_threshold")
    return counted.values[_threshold_cell(counted, keep, "keep").squeeze(-1)]


def youden_threshold(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """The score that, as a threshold, best tells the negatives from the positives: balanced accuracy at its largest.

    The smallest tau that maximises J = P(s- <= tau) - P(s+ <= tau), which is 1 - 2 `detection_error`; the point of the
    ROC curve that lies highest above the diagonal. Where no threshold is better than chance it is one that is as good
    as accepting everything.

    Raises
    ------
    DataError
        If one side is empty.

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3 (1950).

    Examples
    --------
    >>> from caveat.metrics.tally import tally_sets
    >>> youden_threshold(tally_sets(torch.tensor([0.125, 0.25, 0.75]), torch.tensor([0.5, 0.625, 1.0]))).item()
    0.25
    """
    _check.both_sides(counted.negative, counted.positive, "youden_threshold")
    height = _cumulative(counted.negative) - _cumulative(counted.positive)
    return counted.values[height.argmax(-1)]


def shares_accepted(
    counted: Tally, thresholds: Float[Tensor, " t"]
) -> tuple[Float64[Tensor, "*replicas t"], Float64[Tensor, "*replicas t"]]:
    """Shares of the negatives and of the positives that each threshold accepts (score <= threshold).

    Exact for any threshold in exact mode, and for the edges in histogram mode.
    """
    _check.both_sides(counted.negative, counted.positive, "shares_accepted")
    cells = torch.searchsorted(counted.values, thresholds.to(counted.values), right=True)

    def accepted(counts: Tensor) -> Tensor:
        below = torch.cat((counts.new_zeros(*counts.shape[:-1], 1), _cumulative(counts)), dim=-1)
        return below[..., cells]

    return accepted(counted.negative), accepted(counted.positive)


def roc_curve(counted: Tally, *, points: int = 200) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """The ROC curve: x share of in-distribution inputs rejected, y share of OOD inputs rejected, from (0, 0) to (1, 1).

    At most `points` vertices of the full curve, chosen so that the polyline through them strays least.

    Raises
    ------
    DataError
        If one side is empty, or the tally holds replicas.
    OptionError
        If `points` is less than 2.
    """
    _check.both_sides(counted.negative, counted.positive, "roc_curve")
    small = compress(counted)
    one = small.values.new_ones(1)
    x = torch.cat(((1 - _cumulative(small.negative)).flip(-1), one))
    y = torch.cat(((1 - _cumulative(small.positive)).flip(-1), one))
    return simplify(x, y, points=points)


def precision_recall_curve(counted: Tally, *, points: int = 200) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """The precision-recall curve of finding the OOD: x recall, y precision.

    It starts at recall 0 with the precision of the highest score (scikit-learn puts precision 1 there, whatever the
    data say) and ends at recall 1 with the share of the OOD inputs. Otherwise as `roc_curve`.
    """
    _check.both_sides(counted.negative, counted.positive, "precision_recall_curve")
    small = compress(counted)
    found = small.positive.flip(-1).cumsum(-1)
    precision = found / (found + small.negative.flip(-1).cumsum(-1))
    x = torch.cat((found.new_zeros(1), found / found[-1]))
    return simplify(x, torch.cat((precision[:1], precision)), points=points)


def _cumulative(counts: Tensor) -> Tensor:
    total = counts.cumsum(-1)
    return total / total[..., -1:]


def _average_precision(hits: Tensor, others: Tensor) -> Tensor:
    """Average precision when the cells are taken in their order."""
    found = hits.cumsum(-1)
    precision = found / (found + others.cumsum(-1)).clamp(min=1)
    return (hits * precision).sum(-1) / found[..., -1]


def _threshold_cell(counted: Tally, keep: float, name: str) -> Tensor:
    """Index `(..., 1)` of the first cell up to which at least the share `keep` of the negatives lies."""
    _check.share(name, keep)
    kept = counted.negative.cumsum(-1)
    enough = keep * kept[..., -1:] * (1 - _SLACK)
    return (kept < enough).sum(-1, keepdim=True)
