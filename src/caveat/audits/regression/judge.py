"""From predicted distributions and labels to the numbers of a record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from caveat import calibration
from caveat.audits.judge import POINTS, estimate, mean, share
from caveat.metrics import prediction_intervals, regression
from caveat.metrics.interval import Interval, interval_of_mean
from caveat.records.record import Curve, Estimate
from caveat.records.regression import Distributional, Intervals, Uncertainty
from caveat.records.task import Kept
from caveat.sampling import evenly
from caveat.scores.distribution import Distribution, Quantiles, Samples, StudentT
from caveat.scores.regression import Mixture

__all__ = ["distributions", "errors", "intervals", "kept", "uncertainty"]


@dataclass(frozen=True)
class _Made:
    """One kind of interval on the calibration split's corrections, applied to the evaluation split."""

    name: str
    promised: bool
    lower: Tensor
    upper: Tensor


def errors(found: Distribution, labels: Tensor) -> tuple[Estimate, Estimate, float]:
    """RMSE, MAE and R² of the predictions."""
    off = labels - found.mean
    squared = interval_of_mean(off.square())
    rooted = None if squared is None else Interval(*(end**0.5 for end in squared))
    rmse = estimate(float(off.square().mean().sqrt()), rooted)
    spread = float((labels - labels.mean()).square().mean())
    return rmse, mean(off.abs()), 1 - float(off.square().mean()) / spread if spread > 0 else 0.0


def distributions(held_out: tuple[Distribution, Tensor], judged: tuple[Distribution, Tensor]) -> list[Distributional]:
    """How good the distributions are, as they are and after variance scaling; empty for point predictions."""
    found, labels = judged
    rows = [_distributional("none", 1.0, found, labels)] if found.law is not None else []
    tuning, tuning_labels = held_out
    if found.law is not None and tuning.total is not None and not isinstance(found.law, Quantiles):
        scaling = calibration.variance_scaling.fit(tuning.mean, tuning.total.sqrt(), tuning_labels)
        factor = float(scaling.factor)
        if factor > 0:
            rows.append(_distributional("variance_scaling", factor, found.widened(factor), labels))
    return rows


def _distributional(name: str, factor: float, found: Distribution, labels: Tensor) -> Distributional:
    law, nll, crps, loss = found.law, None, None, None
    if isinstance(law, Mixture):
        nll = _shifted(regression.mixture_nll_of_each(law.mean, law.variance, labels, weights=law.weight))
        crps = mean(regression.mixture_crps_of_each(law.mean, law.variance, labels, weights=law.weight))
    elif isinstance(law, StudentT):
        nll = _shifted(regression.student_nll_of_each(law.freedom, law.mean, law.scale, labels))
        crps = mean(regression.student_crps_of_each(law.freedom, law.mean, law.scale, labels))
    elif isinstance(law, Samples):
        crps = _shifted(regression.sample_crps_of_each(law.values, labels))
    elif isinstance(law, Quantiles):
        loss = mean(regression.pinball_of_each(law.values, labels, levels=law.levels))
    curve = _curve_of(found, labels)
    total = found.total
    return Distributional.model_validate({
        "name": name, "factor": factor, "nll": nll, "crps": crps, "pinball": loss,
        "calibration_error": None if curve is None else float((curve[0] - curve[1]).abs().mean()),
        "sharpness": None if total is None else float(total.sqrt().mean()),
        "curve": None if curve is None else Curve(x=curve[0].tolist(), y=curve[1].tolist()),
    })  # fmt: skip


def _curve_of(found: Distribution, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Predicted and observed shares of labels below the predicted quantiles."""
    if isinstance(found.law, Quantiles):
        observed = (labels <= found.law.values).double().mean(dim=1)
        return torch.tensor(found.law.levels, dtype=torch.float64), observed
    pit = found.below(labels)
    return None if pit is None else prediction_intervals.calibration_curve(pit)


def intervals(
    held_out: tuple[Distribution, Tensor], judged: tuple[Distribution, Tensor], error: float
) -> list[Intervals]:
    """Intervals of every kind that the form allows; conformal ones are fitted on the calibration split."""
    return [_judged_intervals(made, judged[1], error, len(held_out[1])) for made in _made(held_out, judged[0], error)]


def _made(held_out: tuple[Distribution, Tensor], found: Distribution, error: float) -> list[_Made]:
    tuning, labels = held_out
    rows: list[_Made] = []
    if (own := found.interval(error)) is not None:
        rows.append(_Made("predicted", promised=False, lower=own[0], upper=own[1]))
    residual = calibration.cqr.fit(tuning.mean, tuning.mean, labels, error=error)
    rows.append(_Made("split_conformal", True, *residual(found.mean, found.mean)))
    if (
        tuning.total is not None
        and found.total is not None
        and bool((tuning.total > 0).all() & (found.total > 0).all())
    ):
        scaled = calibration.normalised.fit(tuning.mean, tuning.total.sqrt(), labels, error=error)
        rows.append(_Made("normalised_conformal", True, *scaled(found.mean, found.total.sqrt())))
    before, after = tuning.ends(error), found.ends(error)
    if before is not None and after is not None:
        rows.append(_Made("cqr", True, *calibration.cqr.fit(*before, labels, error=error)(*after)))
    return rows


def _judged_intervals(made: _Made, labels: Tensor, error: float, fitted_on: int) -> Intervals:
    inside = prediction_intervals.covered(made.lower, made.upper, labels)
    finite = torch.isfinite(made.lower) & torch.isfinite(made.upper)
    width = score = 0.0
    if bool(finite.any()):
        ends = made.lower[finite], made.upper[finite]
        width = float(prediction_intervals.interval_width(*ends))
        score = float(prediction_intervals.interval_score(*ends, labels[finite], error=error))
    return Intervals(
        name=made.name, promised=made.promised, error=error, coverage=share(inside), width=width, score=score,
        unbounded=int((~finite).sum()), fitted_on=fitted_on if made.promised else 0,
    )  # fmt: skip


def uncertainty(sets: Mapping[str, Distribution]) -> list[Uncertainty]:
    """Mean standard deviations of each set, and their parts."""

    def deviation(variance: Tensor | None) -> float | None:
        return None if variance is None else float(variance.sqrt().mean())

    return [
        Uncertainty(
            set=name, total=deviation(found.total), aleatoric=deviation(found.aleatoric),
            epistemic=deviation(found.epistemic),
        )
        for name, found in sets.items() if found.total is not None
    ]  # fmt: skip


def kept(score: str, values: Tensor, losses: Tensor, *, summary: Callable[[Tensor], Tensor]) -> Kept:
    """The error among the samples with the lowest scores; `summary` of their mean loss is what is shown."""
    ordered = losses[values.argsort(stable=True)].cumsum(0) / torch.arange(1, len(losses) + 1, dtype=torch.float64)
    least = max(1, len(losses) // 20)  # the mean of a few is noise
    ranks = evenly(len(losses) - least + 1, POINTS) + least - 1
    return Kept(
        score=score,
        curve=Curve(x=((ranks + 1).double() / len(losses)).tolist(), y=summary(ordered[ranks]).tolist()),
        at_80=float(summary(ordered[max(0, round(0.8 * len(losses)) - 1)])),
    )


def _shifted(losses: Tensor) -> Estimate:
    """Of losses that may be negative: the interval of a mean moves with the losses."""
    least = float(losses.min().clamp_max(0))
    found = interval_of_mean(losses - least)
    moved = None if found is None else Interval(found.value + least, found.low + least, found.high + least)
    return estimate(float(losses.mean()), moved)
