"""How right a network is that says of every input which of several labels it has: label sets, and rankings of labels.

Labels and predictions are `(n, c)`, one column for each label; an input may have none, or all. All results are float64.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check, calibration
from caveat.metrics.calibration import Bins
from caveat.metrics.ranking import aupr_out
from caveat.metrics.tally import tally

__all__ = [
    "any_label",
    "any_label_bins",
    "average_precisions",
    "coverage_error",
    "coverage_error_of_each",
    "f1",
    "f1_macro",
    "f1_micro",
    "hamming_loss",
    "hamming_loss_of_each",
    "label_bins",
    "label_ranking_average_precision",
    "label_ranking_average_precision_of_each",
    "mean_average_precision",
    "missed_share_of_each",
    "ranking_loss",
    "ranking_loss_of_each",
    "subset_accuracy",
]

Present = Bool[Tensor, "n c"]
"""Which labels an input has, or is said to have."""
Scores = Float[Tensor, "n c"]
"""The higher, the likelier the label: probabilities or logits."""
Each = Float64[Tensor, " n"]
One = Float64[Tensor, ""]


def hamming_loss_of_each(predicted: Present, labels: Present) -> Each:
    """Share of the labels that are wrong, for each sample. See `hamming_loss`."""
    _check_sets(predicted, labels)
    return (predicted != labels).double().mean(dim=1)


def hamming_loss(predicted: Present, labels: Present) -> One:
    """Share of all pairs of sample and label that are wrong; small in size where labels are rare.

    Formula: mean_i mean_k [ŷ_ik ≠ y_ik], in [0, 1]; a network that never says yes has the mean prevalence.

    Raises
    ------
    DataError
        If there is no sample or label, or shapes differ (as all metrics here).

    Source: R. Schapire, Y. Singer, BoosTexter: a boosting-based system for text categorization, Machine Learning 39
    (2000), section 3 (Hamming loss).

    Examples
    --------
    >>> hamming_loss(torch.tensor([[True, False]]), torch.tensor([[True, True]])).item()
    0.5
    """
    return hamming_loss_of_each(predicted, labels).mean()


def subset_accuracy(predicted: Present, labels: Present) -> One:
    """Share of the samples of which every label is right; strict, and stricter the more labels there are.

    Formula: mean_i [ŷ_i = y_i], in [0, 1].

    Source: M.-L. Zhang, Z.-H. Zhou, A review on multi-label learning algorithms, TKDE 26 (2014), section 2.2.
    """
    _check_sets(predicted, labels)
    return (predicted == labels).all(dim=1).double().mean()


def f1(predicted: Present, labels: Present) -> Float64[Tensor, " c"]:
    """Harmonic mean of precision and recall of each label; 0 of one that occurs neither in labels nor predictions.

    Formula: 2 TP_k/(2 TP_k + FP_k + FN_k), in [0, 1].
    """
    _check_sets(predicted, labels)
    return _f1((predicted & labels).double().sum(dim=0), (predicted != labels).double().sum(dim=0))


def f1_macro(predicted: Present, labels: Present) -> One:
    """Mean of the labels' F1: a rare label counts like a frequent one.

    Formula: mean_k 2 TP_k/(2 TP_k + FP_k + FN_k), in [0, 1]; a label that never occurs and is never predicted counts 0.

    Source: Y. Yang, An evaluation of statistical approaches to text categorization, Information Retrieval 1 (1999),
    section 4.2 (macro-averaging).
    """
    return f1(predicted, labels).mean()


def f1_micro(predicted: Present, labels: Present) -> One:
    """F1 of all pairs of sample and label together: frequent labels decide it.

    Formula: 2 Σ_k TP_k/Σ_k (2 TP_k + FP_k + FN_k), in [0, 1].

    Source: Y. Yang, An evaluation of statistical approaches to text categorization, Information Retrieval 1 (1999),
    section 4.2 (micro-averaging).
    """
    _check_sets(predicted, labels)
    return _f1((predicted & labels).double().sum(), (predicted != labels).double().sum())


def missed_share_of_each(predicted: Present, labels: Present) -> Each:
    """Share of a sample's true labels that are not among the predicted ones (false negatives); 0 of one without labels.

    Formula: |Y_i \\ Ŷ_i|/|Y_i|, in [0, 1].
    """
    _check_sets(predicted, labels)
    return (labels & ~predicted).double().sum(dim=1) / labels.sum(dim=1).clamp_min(1)


def average_precisions(scores: Scores, labels: Present) -> Float64[Tensor, " c"]:
    """Average precision of each label (`ranking.aupr_out`, samples ranked by its score); NaN of one that never occurs,
    or always.
    """
    _check_scores(scores, labels)
    found = scores.new_full((scores.shape[1],), torch.nan, dtype=torch.float64)
    for k in range(scores.shape[1]):
        if bool(labels[:, k].any()) and not bool(labels[:, k].all()):
            found[k] = aupr_out(tally(scores[:, k], labels[:, k]))
    return found


def mean_average_precision(scores: Scores, labels: Present) -> One:
    """Mean of the labels' average precision (mAP), over those that some samples have and some have not.

    Formula: mean_k Σ_j (R_kj - R_k,j-1) P_kj, in ]0, 1]; a useless network has the mean prevalence.

    Raises
    ------
    DataError
        If there is no such label.

    Source: M. Everingham et al., The PASCAL visual object classes (VOC) challenge, IJCV 88 (2010), section 4.2; without
    interpolation, as COCO's and scikit-learn's.
    """
    found = average_precisions(scores, labels)
    known = found[~found.isnan()]
    if not len(known):
        raise DataError("labels: expected a label that some samples have and others have not, got none; add samples")
    return known.mean()


def label_ranking_average_precision_of_each(scores: Scores, labels: Present) -> Each:
    """The mean of each sample; 1 where it has no label or all. See `label_ranking_average_precision`."""
    at_least, true_at_least = _ranks(scores, labels)
    share = (true_at_least / at_least * labels).sum(dim=1) / labels.sum(dim=1).clamp_min(1)
    return share.masked_fill(_trivial(labels), 1.0)


def label_ranking_average_precision(scores: Scores, labels: Present) -> One:
    """Of the labels ranked at least as high as a true one, the share that are true; averaged over true labels, samples.

    Formula: mean_i 1/|Y_i| Σ_{k in Y_i} |{j in Y_i: s_ij >= s_ik}|/|{j: s_ij >= s_ik}|, in ]0, 1]; 1 if all true
    labels stand above all others.

    Source: R. Schapire, Y. Singer, BoosTexter, Machine Learning 39 (2000), section 3 (average precision); G. Tsoumakas,
    I. Katakis, I. Vlahavas, Mining multi-label data, 2010, section 7.3.
    """
    return label_ranking_average_precision_of_each(scores, labels).mean()


def ranking_loss_of_each(scores: Scores, labels: Present) -> Each:
    """The share of wrongly ordered pairs of each sample; 0 where it has no label or all. See `ranking_loss`."""
    at_least, true_at_least = _ranks(scores, labels)
    # a false label that ties with a true one counts as wrong
    wrong = ((at_least - true_at_least) * labels).sum(dim=1)
    pairs = labels.sum(dim=1) * (~labels).sum(dim=1)
    return wrong / pairs.clamp_min(1)


def ranking_loss(scores: Scores, labels: Present) -> One:
    """Share of the pairs of a true and a false label of a sample that are in the wrong order (or tie).

    Formula: mean_i |{(k, j): k in Y_i, j not, s_ik <= s_ij}|/(|Y_i| (c - |Y_i|)), in [0, 1].

    Source: R. Schapire, Y. Singer, BoosTexter, Machine Learning 39 (2000), section 3 (ranking loss); G. Tsoumakas et
    al., Mining multi-label data, 2010, section 7.3.
    """
    return ranking_loss_of_each(scores, labels).mean()


def coverage_error_of_each(scores: Scores, labels: Present) -> Each:
    """The rank of each sample's last true label; 0 where it has none. See `coverage_error`."""
    at_least, _ = _ranks(scores, labels)
    return (at_least * labels).amax(dim=1)


def coverage_error(scores: Scores, labels: Present) -> One:
    """How far one must go down a sample's ranked labels to find all true ones: at best the mean number of labels.

    Formula: mean_i max_{k in Y_i} |{j: s_ij >= s_ik}|, in [0, c].

    Source: G. Tsoumakas, I. Katakis, I. Vlahavas, Mining multi-label data, 2010, section 7.3 (coverage, there less 1).
    """
    return coverage_error_of_each(scores, labels).mean()


def label_bins(probs: Scores, labels: Present, *, bins: int = 15) -> Bins:
    """Count, label by label, its probability and whether it was there: `Bins` with rows = labels.

    `calibration.ece` of a row is the label's; of the sum over the rows, the pooled one of all pairs.

    Raises
    ------
    DataError
        If `probs` are not in [0, 1], or shapes differ.
    OptionError
        If `bins` is less than 1.
    """
    _check_scores(probs, labels)
    each = [
        calibration.classwise_bins(torch.stack([1 - p, p], dim=1), here.long(), bins=bins)
        for p, here in zip(probs.double().unbind(1), labels.unbind(1), strict=True)
    ]
    return Bins(*(torch.stack([getattr(one, part)[1] for one in each]) for part in ("count", "confidence", "hits")))


def any_label(probs: Scores) -> Each:
    """Probability that a sample has a label at all, if its labels were independent given the input.

    Formula: 1 - Π_k (1 - p_ik), in [0, 1].
    """
    return -torch.log1p(-probs.double()).sum(dim=1).expm1()


def any_label_bins(probs: Scores, labels: Present, *, bins: int = 15) -> Bins:
    """Count the probability that any label is there, and whether one was. Arguments and errors as `label_bins`."""
    _check_scores(probs, labels)
    one = label_bins(any_label(probs)[:, None], labels.any(dim=1, keepdim=True), bins=bins)
    return Bins(one.count[0], one.confidence[0], one.hits[0])


def _f1(hits: Tensor, wrong: Tensor) -> Tensor:
    return 2 * hits / (2 * hits + wrong).clamp_min(1)


def _ranks(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many labels, and how many true ones, score at least as high as each: `(n, c)`, in float64."""
    _check_scores(scores, labels)
    descending, order = scores.detach().double().sort(dim=1, descending=True)
    true = labels.gather(1, order).double()
    # of equal scores the last place counts
    last = torch.searchsorted(-descending.contiguous(), -descending.contiguous(), right=True) - 1
    found = (last + 1).double(), true.cumsum(dim=1).gather(1, last)
    back = order.argsort(dim=1)
    return found[0].gather(1, back), found[1].gather(1, back)


def _trivial(labels: Tensor) -> Tensor:
    return ~labels.any(dim=1) | labels.all(dim=1)


def _check_sets(predicted: Tensor, labels: Tensor) -> None:
    _check.pair("predicted", predicted, "labels", labels)
    if predicted.ndim != 2 or not predicted.numel():
        raise DataError(f"predicted: expected (n, c), one column for each label, got {tuple(predicted.shape)}")


def _check_scores(scores: Tensor, labels: Tensor) -> None:
    _check.pair("scores", scores, "labels", labels)
    _check.finite("scores", scores)
    if scores.ndim != 2:
        raise DataError(f"scores: expected (n, c), one column for each label, got {tuple(scores.shape)}")
