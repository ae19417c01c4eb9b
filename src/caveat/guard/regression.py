"""A regression network that answers with an interval, or abstains where it is too uncertain."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caveat import calibration, devices, evaluation
from caveat.batches import Data
from caveat.calibration.cqr import CQR
from caveat.calibration.normalised import NormalisedConformal
from caveat.errors import DataError, OptionError, known_name
from caveat.guard.decision import REFERENCE, halved
from caveat.guard.entrance import check_apart, outputs
from caveat.guard.likeness import answers
from caveat.guard.threshold import Promise, keeping, p_values
from caveat.guard.verdict import ACCEPTED, INVALID, UNREADABLE, UNTRUSTED
from caveat.inputs import check_same_units, largest, opened
from caveat.models import standardized
from caveat.models.columns import Columns, as_columns
from caveat.observations import Outputs, observe_outputs
from caveat.posteriors.network import Predictive
from caveat.sampling import evenly, spread
from caveat.scores import distribution
from caveat.scores.distribution import LEVELS, UNCERTAINTIES, Distribution
from caveat.weights import state

__all__ = [
    "RegressionDecision",
    "RegressionGuard",
    "RegressionVerdict",
    "Units",
    "answer",
    "corrected",
    "decide",
    "form_of",
    "interval_among",
    "interval_of",
    "nonconformity",
    "predicted",
    "told",
    "units_of",
]

AUTO = "auto"


@dataclass(frozen=True)
class RegressionVerdict:
    """One row per input, in the labels' units."""

    accepted: Bool[Tensor, " n"]
    prediction: Float[Tensor, " n"]
    """NaN for invalid inputs, like all that follows."""
    lower: Float[Tensor, " n"]
    upper: Float[Tensor, " n"]
    """Ends of the interval that holds the label with a probability of `1 - error`, among accepted inputs."""
    score: Float[Tensor, " n"]
    """Higher = less trustworthy."""
    p_value: Float[Tensor, " n"]
    """Share of held-out in-distribution inputs that are as little trustworthy or less, in (0, 1]."""
    reason: Int[Tensor, " n"]
    """Index into `guard.verdict.REASONS`."""
    aleatoric: Float[Tensor, " n"] | None
    """Standard deviation that more data would not take away; None where the network does not tell it."""
    epistemic: Float[Tensor, " n"] | None
    """Standard deviation between networks, which more data would take away; None where there is one network."""
    error: float
    threshold: float
    score_name: str

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.accepted)

    def explain(self, row: int) -> str:
        """Why this input was accepted or refused, in a sentence a person can read."""
        if int(self.reason[row]) == INVALID:
            return UNREADABLE
        accepted = bool(self.accepted[row])
        return (
            f"{'accepted' if accepted else 'abstained'}: predicted {float(self.prediction[row]):.4g} "
            f"({1 - self.error:.0%} interval {float(self.lower[row]):.4g} to {float(self.upper[row]):.4g}), "
            f"{self.score_name} {float(self.score[row]):.4g} {'at or below' if accepted else 'above'} the threshold "
            f"{self.threshold:.4g}"
        )


@dataclass(frozen=True)
class RegressionDecision:
    """How the predictions of a regression network are accepted or refused, and the interval around them."""

    form: str
    levels: tuple[float, ...]
    score: str
    promise: Promise
    reference: Float[Tensor, " m"]
    """Ascending scores of held-out data."""
    interval: CQR | NormalisedConformal
    """Fitted on the accepted ones of the other half of the held-out data."""
    error: float
    scores: Float[Tensor, " k"]
    """Of that half, like the next, so that another threshold gets its own interval."""
    nonconformity: Float[Tensor, " k"]
    shape: tuple[int, ...]
    largest: float | None
    why: str
    dtype: str = "float32"
    columns: tuple[str, ...] | None = None
    """Names of the inputs, where they are columns of a table."""

    def tuned(self, *, keep: float) -> "RegressionDecision":
        """The same with another share kept, and the interval fitted on what is then accepted.

        Raises
        ------
        OptionError
            If `keep` is not in (0, 1), or there are too few held-out samples for it.
        """
        held = keeping(self.reference, keep, self.promise.rounding)
        interval = interval_among(type(self.interval), self.scores, self.nonconformity, held.threshold, self.error)
        return replace(self, promise=held, interval=interval)

    def ends(self, found: Distribution) -> tuple[Tensor, Tensor]:
        """The interval of each prediction."""
        return corrected(self.interval, found, self.error)


@dataclass(frozen=True)
class Units:
    """In which units a network's outputs are: label = centre + scale * output."""

    limited: bool
    """As in `distribution.of`."""
    centre: float
    scale: float


def units_of(model: nn.Module) -> Units:
    """Those of a network, or of a part of it that is standardised."""
    return Units(standardized.standardizes(model), *standardized.label_units(model))


def predicted(model: nn.Module, values: Tensor, form: str, levels: tuple[float, ...]) -> Distribution:
    """The distributions `(n,)` that outputs `(s, n, k)` of a network mean, in the labels' own units."""
    units = units_of(model)
    found = distribution.of(values, form, levels=levels, limited=units.limited)
    return found.moved(units.centre, units.scale)


def answer(
    made: RegressionDecision, values: Tensor, invalid: Tensor, units: Units, *, threshold: Tensor | None = None
) -> RegressionVerdict:
    """From what a network gave for a batch to verdicts: a pure function of tensors, which export stands on too.

    Parameters
    ----------
    values
        Outputs `(s, n, k)`. Those that cannot mean what the form says make their input abstain.
    invalid
        Inputs that could not be looked at `(n,)`: they abstain in any case.
    threshold
        Another one than the promise's, `()`: that which an exported graph is given.
    """
    told = distribution.unread(values, made.form, levels=made.levels, limited=units.limited)
    found = told.moved(units.centre, units.scale)
    score = score_of(made.score, found)
    invalid = invalid | ~distribution.usable(values, made.form, limited=units.limited) | ~torch.isfinite(score)
    accepted = (score <= (made.promise.threshold if threshold is None else threshold)) & ~invalid
    lower, upper = made.ends(found)

    def shown(numbers: Tensor) -> Tensor:
        return numbers.double().masked_fill(invalid, torch.nan)

    return RegressionVerdict(
        accepted, shown(found.mean), shown(lower), shown(upper), shown(score),
        shown(p_values(made.reference, score)),
        torch.where(invalid, INVALID, torch.where(accepted, ACCEPTED, UNTRUSTED)),
        None if found.aleatoric is None else shown(found.aleatoric.sqrt()),
        None if found.epistemic is None else shown(found.epistemic.sqrt()),
        made.error, made.promise.threshold, made.score,
    )  # fmt: skip


def told(made: RegressionDecision, draws: int) -> tuple[str, ...]:
    """Which uncertainties of a verdict are not None, of so many networks."""
    columns = next(k for k in count(1) if distribution.FORMS[made.form].fits(k, made.levels))
    found = distribution.unread(torch.zeros(draws, 1, columns), made.form, levels=made.levels)
    return tuple(name for name in ("aleatoric", "epistemic") if getattr(found, name) is not None)


def score_of(name: str, found: Distribution) -> Tensor:
    """A score of each prediction; `auto` is the first that the form tells.

    Raises
    ------
    OptionError
        If the form does not tell it, or none.
    """
    values = UNCERTAINTIES[name](found)
    if values is None:
        told = [each for each, function in UNCERTAINTIES.items() if function(found) is not None]
        raise OptionError(f"score: the network's outputs do not tell {name}; they tell {', '.join(told) or 'none'}")
    return values.double()


def leading(found: Distribution) -> str:
    """The score that a guard takes by itself: the first of the table that the form tells.

    Raises
    ------
    OptionError
        If there is none.
    """
    told = next((name for name, function in UNCERTAINTIES.items() if function(found) is not None), None)
    if told is None:
        raise OptionError(
            "score: a single network of point predictions tells nothing of its uncertainty; train an ensemble "
            "(--members 5) or with an objective that does (heteroscedastic, quantile, evidential)"
        )
    return told


def corrected(interval: CQR | NormalisedConformal, found: Distribution, error: float) -> tuple[Tensor, Tensor]:
    """The ends of conformal intervals around predictions."""
    if isinstance(interval, CQR):
        ends = found.ends(error)
        return interval(*(ends if ends is not None else (found.mean, found.mean)))
    total = found.total
    assert total is not None
    return interval(found.mean, total.clamp_min(torch.finfo(torch.float64).tiny).sqrt())


def nonconformity(found: Distribution, labels: Tensor, error: float) -> tuple[type[CQR | NormalisedConformal], Tensor]:
    """Of predicted ends (CQR), else in deviations, else around the prediction alone."""
    ends = found.ends(error)
    if ends is None and found.total is not None and bool((found.total > 0).all()):
        return NormalisedConformal, calibration.normalised.nonconformity(found.mean, found.total.sqrt(), labels)
    return CQR, calibration.cqr.nonconformity(*(ends or (found.mean, found.mean)), labels)


def interval_of(kind: type[CQR | NormalisedConformal], off: Tensor, error: float) -> CQR | NormalisedConformal | None:
    """The interval that misses a share `error` at most, from nonconformities; None where they are too few."""
    quantile = calibration.conformal_quantile(off, error)
    return kind(quantile) if bool(torch.isfinite(quantile)) else None


def interval_among(
    kind: type[CQR | NormalisedConformal], scores: Tensor, off: Tensor, threshold: float, error: float
) -> CQR | NormalisedConformal:
    """The interval that misses a share `error` at most of the samples that a threshold accepts.

    Raises
    ------
    OptionError
        If these are too few.
    """
    accepted = off[scores <= threshold]
    found = interval_of(kind, accepted, error)
    if found is None:
        need = math.ceil(1 / error) - 1
        raise OptionError(
            f"held_out: {len(accepted)} of its samples are left to fit the {1 - error:.0%} interval on; expected at "
            f"least {need}: give about {3 * need} samples"
        )
    return found


def decide(  # noqa: PLR0913  # the signature is the configuration
    found: Distribution,
    labels: Tensor,
    *,
    form: str,
    levels: tuple[float, ...] = LEVELS,
    score: str = AUTO,
    keep: float = 0.95,
    error: float = 0.1,
    seed: int = 0,
    shape: tuple[int, ...] = (),
    limit: float | None = None,
    dtype: str = "float32",
    columns: tuple[str, ...] | None = None,
) -> RegressionDecision:
    """A decision from predictions of held-out data that the network was not trained on, and their labels.

    Half of them, drawn by `seed`, sets the threshold: a new in-distribution input is accepted with probability at
    least `keep`. The interval is fitted on those of the other half that it accepts: among accepted inputs it holds the
    label with a probability of at least `1 - error`.

    Raises
    ------
    OptionError
        If a name is in no table, a share is not in (0, 1), or there are too few samples for either promise.
    """
    name = leading(found) if score == AUTO else known_name("score", score, UNCERTAINTIES)
    values = score_of(name, found)
    first, second = halved(len(values), seed)
    ordered = values[first].sort().values
    thinned = ordered[evenly(len(ordered), REFERENCE)]
    held = keeping(thinned, keep)
    rows = second[spread(len(second), REFERENCE)]
    kind, off = nonconformity(found.part(rows), labels[rows], error)
    interval = interval_among(kind, values[rows], off, held.threshold, error)
    why = "named by the user" if score != AUTO else "the first that the network tells"
    return RegressionDecision(
        form, levels, name, held, thinned, interval, error, values[rows], off, shape, limit, why, dtype, columns
    )


class RegressionGuard(nn.Module):
    """Puts a decision in front of a regression network; called on inputs it gives a `RegressionVerdict`."""

    def __init__(self, model: nn.Module, decision: RegressionDecision) -> None:
        super().__init__()
        self.model = model
        self.decision = decision
        self.eval()

    @classmethod
    def fit(  # noqa: PLR0913  # the signature is the configuration
        cls,
        model: nn.Module,
        held_out: Data,
        *,
        outputs: str | None = None,
        levels: tuple[float, ...] = LEVELS,
        train: Data | None = None,
        score: str = AUTO,
        keep: float = 0.95,
        error: float = 0.1,
        seed: int = 0,
        unpack: Callable[[Any], Any] | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
    ) -> "RegressionGuard":
        """Fit a guard on held-out in-distribution data; see `decide` for what is promised.

        Parameters
        ----------
        model
            A regression network, or an ensemble of them (`posteriors.Predictive`).
        outputs, levels
            What its outputs mean (`scores.distribution.FORMS`); of one column, the prediction.
        train
            Training data, to be sure that nothing of it is in `held_out`.
        score
            A name of `scores.distribution.UNCERTAINTIES`, or `auto`: epistemic variance where there are several
            networks, else total variance, else the width of the interval.
        keep, error
            Shares in (0, 1).

        Raises
        ------
        DataError
            If a set is empty, labels are missing, or samples of `train` are in `held_out` too.
        OptionError
            As `decide`; and if `outputs` is needed, or does not fit.
        """
        evaluation.check(model)
        one = opened(held_out, "held_out", unpack, target="number")
        known = None if train is None else opened(train, "train", unpack, target="number")
        check_same_units(one, known)
        with devices.running(model, device, dtype) as place:
            model = as_columns(model, one.first[0], name="held_out")
            seen = observe_outputs(model, one.batches, name="held_out")
            form = form_of(outputs, seen, levels, model)
            if known is not None:
                check_apart(seen, observe_outputs(model, known.batches, name="train"))
        if bool(seen.labels.isnan().any()):
            raise DataError("held_out: its samples have no labels; the interval is fitted on them")
        made = decide(
            predicted(model, seen.values, form, levels), seen.labels, form=form, levels=levels, score=score, keep=keep,
            error=error, seed=seed, shape=one.shape, limit=largest(one), dtype=place.autocast,
            columns=getattr(one.batches, "columns", None),
        )  # fmt: skip
        return cls(model, made)

    def forward(self, inputs: Any) -> RegressionVerdict:
        """Answer or abstain for every input `(n, ...)`.

        Inputs that hold NaN or infinity abstain, and so do those 50 times as large as what the guard was fitted on, and
        those for which the network gives what its form cannot mean, such as a negative variance.

        Raises
        ------
        ModelError
            If the model is in training mode, or the guard is to be traced: see `export`.
        OptionError
            If the inputs have another shape than those the guard was fitted on.
        """
        values, invalid = outputs(self.model, self.decision, inputs)
        return answer(self.decision, values, invalid, units_of(self.model))

    def export(self, path: str | Path, *, example: Tensor | None = None) -> dict[str, str]:
        """Write network, interval, score and threshold as one ONNX graph, as `Guard.export` does."""
        from caveat.guard import onnx_file
        from caveat.guard.graph import RegressionGraph

        here = onnx_file.on_cpu(self)
        return onnx_file.write(here, RegressionGraph(here.model, here.decision), Path(path), example=example)

    def card(self) -> str:
        """A model card in Markdown; one that names the files too: `caveat guard card`."""
        from caveat.guard import card

        return card.of_regression(self.decision)

    def tuned(self, *, keep: float) -> "RegressionGuard":
        """The same guard with another share kept; nothing is fitted again."""
        return RegressionGuard(self.model, self.decision.tuned(keep=keep))

    def save(self, folder: str | Path, *, model: str = "") -> None:
        """Write the guard and the network's weights to `folder`.

        `model` says, for people, how the network is made: `package.module:callable`.

        Raises
        ------
        DataError
            If the folder holds anything that is no guard.
        """
        from caveat.guard import regression_artefact

        inner = self.model.model if isinstance(self.model, Columns) else self.model
        regression_artefact.save(
            self.decision, state(inner), folder, model=model, wrapped=inner is not self.model,
            posterior=inner.description if isinstance(inner, Predictive) else None,
            answers=answers(inner, self.decision.shape, self.decision.largest),
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module) -> "RegressionGuard":
        """Read a guard around `model`, a network of the architecture it was fitted for; its weights are loaded too.

        Raises
        ------
        DataError
            If a file is missing, damaged or altered.
        ModelError
            If the weights do not fit the model.
        """
        from caveat.guard import regression_artefact

        return regression_artefact.load(folder, model)


def form_of(outputs: str | None, seen: Outputs, levels: tuple[float, ...], model: nn.Module) -> str:
    """What outputs mean: as the user says, or the prediction if there is one column.

    Raises
    ------
    OptionError
        If there are more and nobody says, or it does not fit.
    """
    columns, told = seen.values.shape[-1], getattr(model, "form", None)
    if told is not None and outputs not in (None, told):
        raise OptionError(f"outputs: the network itself says that they are {told}, got {outputs}; leave the option out")
    if outputs is None and columns != 1 and told is None:
        fitting = [f"{name} ({one.columns})" for name, one in distribution.FORMS.items() if one.fits(columns, levels)]
        raise OptionError(
            f"outputs: the network gives {columns} numbers for each input; say what they mean: {', '.join(fitting)}"
        )
    form = outputs or told or "point"
    distribution.of(seen.values[:, :1], form, levels=levels)
    return form
