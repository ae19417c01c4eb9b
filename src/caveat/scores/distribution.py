"""What a regression network predicts, whatever form its outputs have: a distribution of the label.

`FORMS` says what the columns of a network's outputs mean; `of` makes a `Distribution` of them, of one network
`(n, k)` or of the draws of an ensemble `(s, n, k)`. All is computed in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from caveat.errors import DataError, OptionError, known_name
from caveat.scores import evidential
from caveat.scores.regression import Gaussians, Mixture, cdf, from_densities, from_gaussians, interval, quantile

__all__ = [
    "FORMS",
    "LEVELS",
    "UNCERTAINTIES",
    "Distribution",
    "Form",
    "Quantiles",
    "Samples",
    "StudentT",
    "of",
    "unread",
    "usable",
]

LEVELS = (0.05, 0.5, 0.95)
"""Of the form `quantiles`, as the objective `quantile` trains them."""
Values = Float64[Tensor, " n"]
HALF = 0.5
WIDTH_ERROR = 0.1
"""Of the interval whose width is a score."""
FEW_SAMPLES = 2
TO_A_DIGIT = 1e-9
TERMS = 25
"""Of the series for quantiles of Student's t: the last one is below rounding for probabilities from 1e-6 on."""
FREEST = 2.0
"""Fewer degrees of freedom no evidential network gives."""


@dataclass(frozen=True)
class StudentT:
    """A Student t for each sample: what an evidential network says of the label."""

    freedom: Values
    mean: Values
    scale: Values


@dataclass(frozen=True)
class Quantiles:
    """Quantiles at ascending levels, sorted, so that none cross."""

    levels: tuple[float, ...]
    values: Float64[Tensor, "q n"]


@dataclass(frozen=True)
class Samples:
    """Equally likely values of the label, sorted."""

    values: Float64[Tensor, "k n"]


Law = Mixture | StudentT | Quantiles | Samples


@dataclass(frozen=True)
class Distribution:
    """One prediction for each sample, in the labels' units."""

    mean: Values
    """The prediction: the mean; of quantiles the median, or the middle of the two levels around it."""
    aleatoric: Values | None
    """Variance that more data would not take away; None where the form does not tell it."""
    epistemic: Values | None
    """Variance between networks, which more data would take away; None of one network that does not tell it."""
    law: Law | None
    """The whole distribution; None of a point prediction."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.mean)

    @property
    def total(self) -> Values | None:
        """Variance of the prediction, as far as it is told; None if nothing is."""
        parts = [part for part in (self.aleatoric, self.epistemic) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def interval(self, error: float) -> tuple[Values, Values] | None:
        """Central interval, missed with probability `error`; None where the form does not tell it.

        Raises
        ------
        OptionError
            If `error` is not in (0, 1).
        """
        if not 0 < error < 1:
            raise OptionError(f"error: expected a share in (0, 1), got {error}")
        if isinstance(self.law, Mixture):
            return interval(self.law, error=error)
        low, high = self.quantile(error / 2), self.quantile(1 - error / 2)
        return None if low is None or high is None else (low, high)

    def ends(self, error: float) -> tuple[Values, Values] | None:
        """The interval at `error`, or the outermost of given quantiles: what conformal prediction may correct."""
        found = self.interval(error)
        if found is None and isinstance(self.law, Quantiles) and len(self.law.levels) > 1:
            return self.law.values[0], self.law.values[-1]
        return found

    def quantile(self, level: float) -> Values | None:
        """The value that the label stays below with probability `level`; None where the form does not tell it."""
        law = self.law
        if isinstance(law, Mixture):
            return quantile(law, level)
        if isinstance(law, StudentT):
            return law.mean + law.scale * _student(law.freedom, level)
        if isinstance(law, Samples):
            return law.values.quantile(level, dim=0)
        if isinstance(law, Quantiles):
            near = [place for place, own in enumerate(law.levels) if abs(own - level) < TO_A_DIGIT]
            return law.values[near[0]] if near else None
        return None

    def below(self, labels: Values) -> Values | None:
        """Predicted probability of at most the label (PIT), uniform if right; None where the form does not tell it."""
        law = self.law
        if isinstance(law, Mixture):
            return cdf(law, labels)
        if isinstance(law, StudentT):
            from scipy.special import stdtr

            return torch.from_numpy(stdtr(law.freedom.numpy(), ((labels - law.mean) / law.scale).numpy()))
        if isinstance(law, Samples):
            return (law.values <= labels).double().mean(dim=0)
        return None

    def moved(self, centre: float, scale: float) -> "Distribution":
        """The prediction of `centre + scale * label`: back from standardised labels to their own units."""
        return self._changed(lambda values: centre + scale * values, scale)

    def widened(self, factor: float) -> "Distribution":
        """The same prediction with every deviation from it `factor` times as large."""
        return self._changed(lambda values: self.mean + factor * (values - self.mean), factor)

    def part(self, rows: Tensor) -> "Distribution":
        """The predictions at `rows`, in that order."""
        law = self.law
        if law is not None:
            law = replace(law, **{key: each[..., rows] for key, each in vars(law).items() if isinstance(each, Tensor)})
        parts = [None if part is None else part[rows] for part in (self.aleatoric, self.epistemic)]
        return Distribution(self.mean[rows], parts[0], parts[1], law)

    def _changed(self, move: Callable[[Tensor], Tensor], scale: float) -> "Distribution":
        law = self.law
        if isinstance(law, Mixture):
            law = Mixture(law.weight, move(law.mean), law.variance * scale**2)
        elif isinstance(law, StudentT):
            law = StudentT(law.freedom, move(law.mean), law.scale * scale)
        elif isinstance(law, Quantiles | Samples):
            law = replace(law, values=move(law.values))
        parts = [None if part is None else part * scale**2 for part in (self.aleatoric, self.epistemic)]
        return Distribution(move(self.mean), parts[0], parts[1], law)


@dataclass(frozen=True)
class Form:
    """What the columns of a network's outputs mean."""

    columns: str
    """In words, for messages and help."""
    make: Callable[[Float64[Tensor, "s n k"], tuple[float, ...]], Distribution]
    fits: Callable[[int, tuple[float, ...]], bool]
    """Whether it can have so many columns."""
    draws: bool = True
    """Whether those of several networks can be put together."""
    usable: Callable[[Float64[Tensor, "s n k"]], Bool[Tensor, "s n"]] = lambda outputs: torch.isfinite(outputs).all(-1)
    """Which numbers can mean that."""
    check: Callable[[Float64[Tensor, "s n k"], tuple[float, ...]], None] = lambda outputs, levels: None
    """Refuses those that cannot, by what may have been meant."""


def of(
    outputs: Float[Tensor, "*s n k"], form: str, *, levels: Sequence[float] = LEVELS, limited: bool = False
) -> Distribution:
    """The distributions that outputs mean, a name of `FORMS`; with draws in front, their mixture.

    `limited` log variances are kept softly in [-14, 14], as the objectives take them
    (`scores.regression.log_variance`): right for networks that were trained so on standardised labels. Others
    are taken as they are, in any unit.

    Raises
    ------
    OptionError
        If there is no such form, it does not fit the number of columns or takes no draws, or levels do not ascend.
    DataError
        If a number is not finite, or what must be positive is not.
    """
    chosen, marks = _chosen(outputs, form, levels, limited=limited)
    if not bool(torch.isfinite(outputs).all()):
        raise DataError("outputs: expected finite numbers, got NaN or infinity")
    wide = _wide(outputs)
    chosen.check(wide, marks)
    return chosen.make(wide, marks)


def unread(
    outputs: Float[Tensor, "*s n k"], form: str, *, levels: Sequence[float] = LEVELS, limited: bool = False
) -> Distribution:
    """The same without a look at the numbers, which no exported graph could take: ask `usable` which rows are told.

    Raises
    ------
    OptionError, DataError
        As `of`, of the form and the shape.
    """
    chosen, marks = _chosen(outputs, form, levels, limited=limited)
    return chosen.make(_wide(outputs), marks)


def usable(outputs: Float[Tensor, "*s n k"], form: str, *, limited: bool = False) -> Bool[Tensor, " n"]:
    """Which samples have outputs that can mean what the form says: finite, and positive where that is needed."""
    return _kind(form, limited=limited).usable(_wide(outputs)).all(0)


def _chosen(outputs: Tensor, form: str, levels: Sequence[float], *, limited: bool) -> tuple[Form, tuple[float, ...]]:
    """The form and the levels, if outputs of this shape can have them."""
    known_name("outputs", form, FORMS)
    chosen, marks = _kind(form, limited=limited), tuple(map(float, levels))
    if not marks or any(not 0 < level < 1 for level in marks) or sorted(set(marks)) != list(marks):
        raise OptionError(f"levels: expected ascending probabilities in (0, 1), got {marks}")
    if outputs.ndim not in (2, 3):
        raise DataError(f"outputs: expected (n, k), or (s, n, k) of several networks, got {tuple(outputs.shape)}")
    if not chosen.fits(outputs.shape[-1], marks):
        raise OptionError(
            f"outputs: {form} means {chosen.columns}, but the network gives {outputs.shape[-1]} numbers for each "
            f"input; expected one of {', '.join(n for n, one in FORMS.items() if one.fits(outputs.shape[-1], marks))}"
        )
    if outputs.ndim == 3 and len(outputs) > 1 and not chosen.draws:
        raise OptionError(
            f"outputs: those of several networks can't be put together in the form {form}; take one network, or train "
            "the members with heteroscedastic"
        )
    return chosen, marks


def _kind(form: str, *, limited: bool) -> Form:
    return LIMITED.get(form, FORMS[form]) if limited else FORMS[form]


def _wide(outputs: Tensor) -> Tensor:
    """In double precision, those of one network too as draws `(s, n, k)`."""
    return outputs.double() if outputs.ndim == 3 else outputs.double()[None]


@cache
def _series(level: float) -> tuple[float, ...]:
    """Coefficients of the Chebyshev series of the quantile of Student's t in 4/freedom - 1, which lies in [-1, 1]."""
    from scipy.special import stdtrit

    nodes = np.cos(np.pi * (np.arange(TERMS) + HALF) / TERMS)
    at = np.polynomial.chebyshev.chebfit(nodes, stdtrit(2 * FREEST / (nodes + 1), level), TERMS - 1)
    return tuple(at.tolist())


def _student(freedom: Tensor, level: float) -> Tensor:
    """The quantile of Student's t, from two degrees of freedom on, in operations that torch and ONNX have.

    >>> _student(torch.tensor([3.0, 1e9], dtype=torch.float64), 0.975)
    tensor([3.1824, 1.9600], dtype=torch.float64)
    """
    place = 2 * FREEST / freedom - 1
    one, other = torch.zeros_like(place), torch.zeros_like(place)
    first, *rest = _series(level)
    for number in reversed(rest):  # Clenshaw's recurrence
        one, other = 2 * place * one - other + number, one
    return place * one - other + first


def _point(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    means = outputs[..., 0]
    return Distribution(means.mean(0), None, _between(means), None)


def _between(means: Tensor) -> Tensor | None:
    """Variance of the networks' means; None of one."""
    return None if len(means) == 1 else means.var(dim=0, correction=0)


def _gaussians(found: Gaussians) -> Distribution:
    law = Mixture(torch.full_like(found.mean, 1 / len(found.mean)), found.mean, found.variance)
    return Distribution(found.mean.mean(0), found.variance.mean(0), _between(found.mean), law)


def _gaussian(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    return _gaussians(Gaussians(outputs[..., 0], outputs[..., 1].exp()))


def _limited_gaussian(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    return _gaussians(from_gaussians(outputs))


def _as_logs(parts: int) -> Callable[[Tensor], Tensor]:
    """Whether the last of so many parts of the columns are logarithms of numbers."""

    def found(outputs: Tensor) -> Tensor:
        variance = outputs.chunk(parts, dim=-1)[-1].exp()
        return (torch.isfinite(outputs).all(-1)) & (torch.isfinite(variance) & (variance > 0)).all(-1)

    return found


def _check_logs(parts: int) -> Callable[[Tensor, tuple[float, ...]], None]:
    """Refuses log variances whose exponential is 0 or infinite."""

    def check(outputs: Tensor, levels: tuple[float, ...]) -> None:
        del levels
        if not bool(_as_logs(parts)(outputs).all()):
            raise DataError(
                f"outputs: expected log variances, got {float(outputs.chunk(parts, dim=-1)[-1].abs().max()):g}, whose "
                "exponential is no number: are they variances or standard deviations (forms gaussian_variance, "
                "gaussian_std)?"
            )

    return check


def _with_variance(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    return _gaussians(Gaussians(outputs[..., 0], outputs[..., 1]))


def _with_deviation(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    return _gaussians(Gaussians(outputs[..., 0], outputs[..., 1].square()))


def _mixture(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    logits, mean, raw = (part.movedim(-1, 1) for part in outputs.chunk(3, dim=-1))  # (s, k, n)
    weight, variance = logits.softmax(dim=1), raw.exp()
    centre = (weight * mean).sum(1)
    own = Gaussians(centre, (weight * (variance + (mean - centre[:, None]) ** 2)).sum(1))
    law = Mixture((weight / len(outputs)).flatten(0, 1), mean.flatten(0, 1), variance.flatten(0, 1))
    return Distribution(own.mean.mean(0), own.variance.mean(0), _between(own.mean), law)


def _limited_mixture(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    law, own = from_densities(outputs)
    return Distribution(own.mean.mean(0), own.variance.mean(0), _between(own.mean), law)


def _evidential(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    found = evidential.evidence(outputs[0])
    scale = (found.rate * (1 + found.precision) / (found.precision * found.shape)).sqrt()
    law = StudentT(2 * found.shape, found.mean, scale)
    return Distribution(found.mean, evidential.aleatoric(found), evidential.epistemic(found), law)


def _quantiles(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    ordered = outputs.sort(dim=-1).values
    low = max((k for k, level in enumerate(levels) if level <= HALF), default=0)
    high = min((k for k, level in enumerate(levels) if level >= HALF), default=len(levels) - 1)
    middles = (ordered[..., low] + ordered[..., high]) / 2
    law = Quantiles(levels, ordered.mean(0).T.contiguous())
    return Distribution(middles.mean(0), None, _between(middles), law)


def _samples(outputs: Tensor, levels: tuple[float, ...]) -> Distribution:
    del levels
    means, variances = outputs.mean(dim=-1), outputs.var(dim=-1)  # n - 1: of few samples the other is too small
    law = Samples(outputs.permute(0, 2, 1).flatten(0, 1).sort(dim=0).values)
    return Distribution(means.mean(0), variances.mean(0), _between(means), law)


def _check_order(outputs: Tensor, levels: tuple[float, ...]) -> None:
    if len(levels) > 1 and bool((outputs[..., 0] > outputs[..., -1]).double().mean() > 0.5):
        raise DataError(
            f"outputs: expected quantiles at the levels {', '.join(map(str, levels))} in this order, but for most "
            "inputs the first lies above the last: are the columns in another order?"
        )


def _positive(outputs: Tensor) -> Tensor:
    return torch.isfinite(outputs).all(-1) & (outputs[..., 1] > 0)


def _check_positive(what: str) -> Callable[[Tensor, tuple[float, ...]], None]:
    """Refuses a second column that is not positive."""

    def check(outputs: Tensor, levels: tuple[float, ...]) -> None:
        del levels
        if bool((outputs[..., 1] <= 0).any()):
            raise DataError(
                f"outputs: expected a positive {what} in the second column, got {float(outputs[..., 1].min()):g}: is "
                "it the logarithm of the variance (form gaussian)?"
            )

    return check


FORMS: dict[str, Form] = {
    "point": Form("the prediction alone", _point, lambda columns, _: columns == 1),
    "gaussian": Form(
        "mean and log variance", _gaussian, lambda columns, _: columns == 2, usable=_as_logs(2), check=_check_logs(2),
    ),
    "gaussian_variance": Form(
        "mean and variance", _with_variance, lambda columns, _: columns == 2, usable=_positive,
        check=_check_positive("variance"),
    ),
    "gaussian_std": Form(
        "mean and standard deviation", _with_deviation, lambda columns, _: columns == 2, usable=_positive,
        check=_check_positive("standard deviation"),
    ),
    "mixture": Form(
        "logits of the weights, means and log variances of some Gaussians, a third of the columns each",
        _mixture, lambda columns, _: columns > 0 and columns % 3 == 0, usable=_as_logs(3), check=_check_logs(3),
    ),
    "evidential": Form(
        "mean and three raw parameters of a normal-inverse-gamma distribution", _evidential,
        lambda columns, _: columns == 4, draws=False,
    ),
    "quantiles": Form(
        "quantiles at the levels", _quantiles, lambda columns, levels: columns == len(levels), check=_check_order,
    ),
    "samples": Form("equally likely values of the label", _samples, lambda columns, _: columns >= FEW_SAMPLES),
}  # fmt: skip
"""What the outputs of a regression network may mean; those of `objectives.FOR_REGRESSION` are gaussian
(heteroscedastic, beta_nll), mixture, evidential and quantiles."""


LIMITED = {
    "gaussian": Form(FORMS["gaussian"].columns, _limited_gaussian, FORMS["gaussian"].fits),
    "mixture": Form(FORMS["mixture"].columns, _limited_mixture, FORMS["mixture"].fits),
}
"""Forms with log variances, of networks whose training limited them."""


def _width(found: Distribution) -> Values | None:
    ends = found.ends(WIDTH_ERROR)
    return None if ends is None else ends[1] - ends[0]


UNCERTAINTIES: dict[str, Callable[[Distribution], Values | None]] = {
    "epistemic_variance": lambda found: found.epistemic,
    "total_variance": lambda found: found.total,
    "aleatoric_variance": lambda found: found.aleatoric,
    "interval_width": _width,
}
"""Higher = less trustworthy; None where the form does not tell it. The first that is told leads."""
