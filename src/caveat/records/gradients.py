"""Statistics of gradients over the sets, and what meta classifiers live on. Part of the record; no torch."""

from caveat.records.base import Part

__all__ = ["GradientStatistic", "MetaClassifier"]


class GradientStatistic(Part):
    """How one statistic of the gradient of all parameters is spread over the sets."""

    statistic: str
    logarithmic: bool
    """Whether the bins are of equal width in the logarithm of the absolute value."""
    low: float
    high: float
    """Where the first bin begins and the last one ends; what lies beyond counts there."""
    median: dict[str, float]
    """Per set. In-distribution data are split: `correct` and `wrong`."""
    bins: dict[str, list[float]]
    """Per set, the samples in each bin over those in its fullest bin."""


class MetaClassifier(Part):
    """What a meta classifier looks at."""

    score: str
    penalty: float | None
    """Strength of a linear one's penalty, as it was chosen; 0 without one."""
    weights: dict[str, float]
    """The largest coefficients of a linear one, of standardised columns `layer/statistic`."""
    importances: dict[str, float]
    """AUROC lost, wrong and OOD against correct, when the columns of a layer or of a statistic are shuffled."""
