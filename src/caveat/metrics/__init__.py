"""Metrics: pure functions of small mergeable counts in float64.

Scores are counted in a `tally.Tally`, confidences in `calibration.Bins`; both merge, so any amount of data can be gone
through in parts. `interval` and `interval_of_tally` say how
uncertain a value is.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from caveat.metrics import (
    calibration,
    interval,
    interval_of_tally,
    multilabel,
    prediction_intervals,
    proper,
    ranking,
    regression,
    selective,
    tally,
)

__all__ = [
    "OF_BINS",
    "OF_LABEL_RANKING",
    "OF_LABEL_SETS",
    "OF_LOGITS",
    "OF_PROBABILITIES",
    "OF_RANKING",
    "OF_REGRESSION",
    "OF_SELECTIVE",
    "calibration",
    "interval",
    "interval_of_tally",
    "multilabel",
    "prediction_intervals",
    "proper",
    "ranking",
    "regression",
    "selective",
    "tally",
]

OF_RANKING: Mapping[str, Callable[[tally.Tally], Tensor]] = {
    "auroc": ranking.auroc,
    "aupr_in": ranking.aupr_in,
    "aupr_out": ranking.aupr_out,
    "fpr_at_95_tpr": ranking.fpr_at_tpr,
    "detection_error": ranking.detection_error,
}
"""Of a tally of in-distribution (negative) and OOD (positive) samples."""

OF_SELECTIVE: Mapping[str, Callable[[tally.Tally], Tensor]] = {
    "aurc": selective.aurc,
    "e_aurc": selective.e_aurc,
    "augrc": selective.augrc,
    "risk_at_80_coverage": selective.risk_at_coverage,
    "coverage_at_5_risk": selective.coverage_at_risk,
}
"""Of a tally of the correct (negative) and the wrong (positive)."""

OF_BINS: Mapping[str, Callable[[calibration.Bins], Tensor]] = {
    "ece": calibration.ece,
    "mce": calibration.mce,
    "rmsce": calibration.rmsce,
    "mean_confidence": calibration.mean_confidence,
}
"""Of `calibration.confidence_bins`."""

OF_PROBABILITIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": proper.accuracy,
    "brier": proper.brier,
    "ece_equal_mass": calibration.ece_equal_mass,
    "ece_classwise": calibration.ece_classwise,
}
"""Of probabilities `(n, c, ...)` and labels `(n, ...)`."""

OF_LOGITS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"nll": proper.nll}
"""Of logits `(n, c, ...)` and labels `(n, ...)`."""

OF_REGRESSION: Mapping[str, Callable[..., Tensor]] = {
    "rmse": regression.rmse,
    "mae": regression.mae,
    "gaussian_nll": regression.gaussian_nll,
    "mixture_nll": regression.mixture_nll,
    "gaussian_crps": regression.gaussian_crps,
    "mixture_crps": regression.mixture_crps,
    "interval_coverage": prediction_intervals.interval_coverage,
    "interval_width": prediction_intervals.interval_width,
    "interval_score": prediction_intervals.interval_score,
    "calibration_error": prediction_intervals.calibration_error,
}
"""Of what the names of their arguments say, `(n,)` each: `mean`, `variance`, `labels`, `lower`, `upper`, `pit`;
`means` and `variances` are those of a mixture's components, `(k, n)`.
"""

OF_LABEL_SETS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hamming_loss": multilabel.hamming_loss,
    "subset_accuracy": multilabel.subset_accuracy,
    "f1_micro": multilabel.f1_micro,
    "f1_macro": multilabel.f1_macro,
}
"""Of the labels that are predicted and those that are there, booleans `(n, c)`."""

OF_LABEL_RANKING: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_average_precision": multilabel.mean_average_precision,
    "label_ranking_average_precision": multilabel.label_ranking_average_precision,
    "ranking_loss": multilabel.ranking_loss,
    "coverage_error": multilabel.coverage_error,
}
"""Of the labels' probabilities or logits `(n, c)`, and which are there."""
