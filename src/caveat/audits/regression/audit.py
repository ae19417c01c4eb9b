"""`audit_regression`: observe once, then say how far a regression network's predictions may be trusted."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import devices, evaluation, models
from caveat.audits import cache
from caveat.audits.assess import split
from caveat.audits.audit import named_sets
from caveat.audits.content import content
from caveat.audits.judge import detection, share
from caveat.audits.overlap import overlaps
from caveat.audits.regression import judge
from caveat.batches import Data
from caveat.errors import DataError, OptionError
from caveat.guard import regression as guards
from caveat.inputs import Opened, check_same_shapes, check_same_units, largest, opened, remarks
from caveat.models.standardized import label_units, standardizes
from caveat.observations import Outputs, observe_outputs
from caveat.posteriors.network import Predictive
from caveat.records.base import stamp
from caveat.records.record import SetSummary
from caveat.records.regression import Answered, RegressionRecord
from caveat.records.task import Preview
from caveat.sampling import spread
from caveat.scores.distribution import LEVELS, UNCERTAINTIES, Distribution

__all__ = ["audit_regression"]

SHOWN = 400
"""Test samples in the pictures."""
FAR = 10
"""So many times too large or too small, a deviation is of another form."""
FOLLOWS = 0.5
"""Squared correlation from which on predictions follow the labels, whatever their units."""


@dataclass(frozen=True)
class _Judged:
    """What was predicted of each set: the test set's evaluation split, and the others whole."""

    found: Mapping[str, Distribution]
    labels: Tensor
    held_out: tuple[Distribution, Tensor]
    scores: Mapping[str, Mapping[str, Tensor]]
    """Per score and set."""


def audit_regression(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    test: Data,
    *,
    outputs: str | None = None,
    levels: Sequence[float] = LEVELS,
    train: Data | None = None,
    ood: Mapping[str, Data] | None = None,
    error: float = 0.1,
    keep: float = 0.95,
    calibration_share: float = 0.5,
    seed: int = 0,
    unpack: Callable[[Any], Any] | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    folder: Path | None = None,
    made_by: str = "",
    say: Callable[[str], None] | None = None,
) -> RegressionRecord:
    """Audit a regression network: errors, calibration of what it predicts, intervals, and what uncertainty is worth.

    Parameters
    ----------
    model
        A network in evaluation mode that gives numbers `(n, k)`, `(n,)`, several of these, or a distribution of torch
        for each input; or several networks (`posteriors.Predictive`): then aleatoric and epistemic uncertainty are told
        apart.
    test
        Data that the model was not trained on, labels real `(n,)`.
    outputs, levels
        What the outputs mean, a name of `scores.distribution.FORMS`; one column is the prediction. The levels are
        those of quantiles.
    train
        Training data, to find test samples that are among them.
    ood
        Sets of inputs unlike those of training, by name; their labels are not used.
    error
        Share of labels that intervals may miss.
    keep
        Share of in-distribution inputs that the previewed guard accepts.
    calibration_share
        Share of `test` on which intervals and factors are fitted; everything is judged on the rest.
    seed
        Of the split.
    folder
        Keep the outputs for the test set there, for a guard.
    unpack, device, dtype, made_by, say
        As in `audit`.

    Raises
    ------
    DataError
        If a set is empty, differs in shape, holds NaN, or test labels are missing.
    ModelError
        If the model is in training mode, gives no numbers, NaN, or does not repeat itself.
    OptionError
        If `outputs` is missing or does not fit, or a share is not in (0, 1).
    """
    say, started = say or (lambda _: None), time.perf_counter()
    for option, value in (("error", error), ("keep", keep), ("calibration_share", calibration_share)):
        if not 0 < value < 1:
            raise OptionError(f"{option}: expected a share in (0, 1), got {value}")
    evaluation.check(model)
    given = {"test": test} | ({"train": train} if train is not None else {}) | named_sets("ood", ood)
    sets = {name: opened(batches, name, unpack, target="number") for name, batches in given.items()}
    check_same_shapes(sets)
    check_same_units(sets["test"], sets.get("train"))
    with devices.running(model, device, dtype) as place:
        model = models.as_columns(model, sets["test"].first[0], name="test")
        seen: dict[str, Outputs] = {}
        for name, one in sets.items():
            say(f"observing {name}")
            seen[name] = observe_outputs(model, one.batches, name=name)
    observed = time.perf_counter() - started
    if bool(seen["test"].labels.isnan().any()):
        raise DataError("test: its samples have no labels: give a column label, or batches (inputs, labels)")
    say("judging")
    marks = tuple(map(float, levels))
    form = guards.form_of(outputs, seen["test"], marks, model)
    judged = _judged(model, seen, form, marks, calibration_share, seed)
    previews, left_out = _previews(judged, error=error, keep=keep, form=form, levels=marks, seed=seed)
    settings = {
        "outputs": form, "levels": list(marks), "error": error, "keep": keep, "calibration_share": calibration_share,
        "seed": seed, **place.settings,
    }  # fmt: skip
    record = _record(
        model, sets, seen, judged, settings=settings, form=form, error=error, previews=previews, left_out=left_out,
        seconds={"observe": observed},
    )  # fmt: skip
    record.seconds["all"] = round(time.perf_counter() - started, 3)
    if folder is None:
        return record
    about = {
        "form": form, "levels": list(marks), "error": error, "keep": keep, "calibration_share": calibration_share,
        "seed": seed, "shape": list(sets["test"].shape), "largest": largest(sets["test"]), "model": made_by,
        "autocast": place.autocast, "columns": getattr(sets["test"].batches, "columns", None),
    }  # fmt: skip
    return record.model_copy(update={"observations": _kept(folder / "observations", model, seen["test"], about)})


def _kept(place: Path, model: nn.Module, seen: Outputs, about: dict[str, Any]) -> str:
    """Keep the test set's outputs and the network's weights; the name by which the record knows them."""
    inner = model.model if isinstance(model, models.Columns) else model
    own = {
        "task": "regression", "units": list(label_units(model)), "limited": standardizes(model),
        "wrapped": inner is not model,
        "posterior": inner.description if isinstance(inner, Predictive) else None,
    }  # fmt: skip
    cache.begin(place)
    cache.keep_outputs(place, "test", seen)
    return cache.finish(inner, None, place, ["test"], about | own)


def _judged(
    model: nn.Module, seen: Mapping[str, Outputs], form: str, levels: tuple[float, ...], part: float, seed: int
) -> _Judged:
    calibrating, positions = split(len(seen["test"]), part, seed)
    test, labels = guards.predicted(model, seen["test"].values, form, levels), seen["test"].labels
    found = {"test": test.part(positions)}
    for name, one in seen.items():
        if name not in ("test", "train"):
            found[name] = guards.predicted(model, one.values, form, levels)
    scores = {
        name: {key: values.double() for key, one in found.items() if (values := function(one)) is not None}
        for name, function in UNCERTAINTIES.items()
        if function(test) is not None
    }
    return _Judged(found, labels[positions], (test.part(calibrating), labels[calibrating]), scores)


def _record(  # noqa: PLR0913  # all parts of an audit meet here
    model: nn.Module,
    sets: Mapping[str, Opened],
    seen: Mapping[str, Outputs],
    judged: _Judged,
    *,
    settings: Mapping[str, Any],
    form: str,
    error: float,
    previews: list[Preview],
    left_out: list[str],
    seconds: Mapping[str, float],
) -> RegressionRecord:
    test, labels = judged.found["test"], judged.labels
    rmse, mae, r2 = judge.errors(test, labels)
    squared = (labels - test.mean).square()
    copies, few = overlaps(
        seen["test"], seen.get("train"), {n: s for n, s in seen.items() if n not in ("test", "train")}, None
    )
    record = RegressionRecord(
        **stamp(),
        settings=dict(settings),
        model=models.title(model),
        parameters=sum(p.numel() for p in model.parameters()),
        sets=[_set(name, one, seen[name]) for name, one in sets.items()],
        split=(
            f"Of test, {len(judged.held_out[1])} samples drawn by seed {settings['seed']} are the calibration split, "
            f"on which intervals and factors are fitted. All figures are of the other {len(labels)}, the evaluation "
            "split."
        ),
        detections=[
            detection(name, key, values["test"], other)
            for name, values in judged.scores.items() for key, other in values.items() if key != "test"
        ],
        form=form,
        networks=len(seen["test"].values),
        rmse=rmse, mae=mae, r2=r2, label_mean=float(labels.mean()), label_std=float(labels.std(correction=0)),
        distributions=judge.distributions(judged.held_out, (test, labels)),
        intervals=judge.intervals(judged.held_out, (test, labels), error),
        uncertainty=judge.uncertainty(judged.found),
        selective=[
            judge.kept(name, values["test"], squared, summary=torch.sqrt) for name, values in judged.scores.items()
        ],
        operating=previews,
        answered=_answered(judged, error),
        warnings=[*_warnings(test, labels, r2), *copies],
        notes=[*few, *left_out],
        seconds=dict(seconds),
    )  # fmt: skip
    record.warnings.extend(remarks(sets))
    record.notes.extend(_notes(record, len(labels)))
    return record


def _set(name: str, one: Opened, seen: Outputs) -> SetSummary:
    role = name if name in ("test", "train") else "ood"
    return SetSummary.model_validate({
        "name": name, "role": role, "source": one.source, "count": len(seen), "shape": list(one.shape),
        "generated": one.generated, "content": content(seen, labelled=role != "ood"),
    })  # fmt: skip


def _previews(
    judged: _Judged, *, error: float, keep: float, form: str, levels: tuple[float, ...], seed: int
) -> tuple[list[Preview], list[str]]:
    """What the guard with the leading score would do; or why there is none."""
    found, labels = judged.held_out
    if not judged.scores:
        return [], ["Guard: the network tells nothing of its uncertainty, so that there is nothing to abstain by."]
    name = next(iter(judged.scores))
    try:
        made = guards.decide(found, labels, form=form, levels=levels, score=name, keep=keep, error=error, seed=seed)
    except OptionError as refusal:
        return [], [f"Guard: {refusal}"]
    threshold = made.promise.threshold
    accepted = {key: values <= threshold for key, values in judged.scores[name].items()}
    squared = (judged.labels - judged.found["test"].mean).square()
    kept = squared[accepted["test"]]
    lower, upper = made.ends(judged.found["test"])
    inside = (lower <= judged.labels) & (judged.labels <= upper)
    preview = Preview(
        score=name, keep=keep, threshold=threshold, accepted={key: share(hits) for key, hits in accepted.items()},
        error=float(kept.mean().sqrt()) if len(kept) else 0.0, error_of_all=float(squared.mean().sqrt()),
        coverage=share(inside[accepted["test"]]) if len(kept) else None,
    )  # fmt: skip
    return [preview], []


def _answered(judged: _Judged, error: float) -> Answered:
    """Some samples of the evaluation split with an interval, for the pictures."""
    rows = spread(len(judged.labels), SHOWN)
    test = judged.found["test"].part(rows)
    tuning, labels = judged.held_out
    kind, off = guards.nonconformity(tuning, labels, error)
    interval = guards.interval_of(kind, off, error)
    lower, upper = guards.corrected(interval, test, error) if interval else (test.mean, test.mean)
    scores = next(iter(judged.scores.values()), None)
    return Answered(
        prediction=test.mean.tolist(), label=judged.labels[rows].tolist(), lower=lower.tolist(), upper=upper.tolist(),
        score=[] if scores is None else scores["test"][rows].tolist(),
    )  # fmt: skip


def _warnings(test: Distribution, labels: Tensor, r2: float) -> list[str]:
    """Signs that predictions and labels are in other units, outputs of another form, or that nothing was learnt."""
    found: list[str] = []
    if test.total is not None:
        told, seen = float(test.total.sqrt().mean()), float((labels - test.mean).square().mean().sqrt())
        if seen > 0 and not 1 / FAR < told / seen < FAR:
            found.append(
                f"The predicted standard deviation is {told:.3g} in the mean, the error {seen:.3g}: do the outputs "
                "have the form that --outputs says (log variance, variance, standard deviation)?"
            )
    return found + _worse(test, labels) if r2 < 0 else found


def _worse(test: Distribution, labels: Tensor) -> list[str]:
    """Why predictions are worse than the mean of the labels."""
    r2 = 1 - float((labels - test.mean).square().mean() / (labels - labels.mean()).square().mean())
    pairs = torch.stack([test.mean, labels])
    spread_out = bool((pairs.std(dim=1) > 0).all())
    correlation = float(torch.corrcoef(pairs)[0, 1]) if spread_out else 0.0
    if correlation**2 > FOLLOWS:
        slope = correlation * float(labels.std() / test.mean.std())
        offset = float(labels.mean() - slope * test.mean.mean())
        return [
            f"The predictions follow the labels (correlation {correlation:.3f}) but are in other units: label = "
            f"{offset:.4g} + {slope:.4g} * prediction. Was the network trained on standardised labels? Undo that in "
            "its forward, or standardise the labels likewise."
        ]
    return [
        f"The network is worse than always predicting the mean of the labels (R² {r2:.3f}): is it trained, are inputs "
        "and labels those it was trained for, in the same order and units?"
    ]


def _notes(record: RegressionRecord, count: int) -> list[str]:
    notes: list[str] = []
    if count < 1000:
        notes.append(f"Only {count} samples were judged: read the intervals, not the values.")
    if not any(item.role == "ood" for item in record.sets):
        notes.append("No OOD set was given: nothing is known of how the network answers what it has never seen.")
    if unbounded := [item.name for item in record.intervals if item.unbounded]:
        notes.append(
            f"The calibration split is too small to promise intervals at this error: those of {', '.join(unbounded)} "
            "are infinite; raise calibration_share or the error."
        )
    if record.networks == 1 and record.form != "evidential":
        notes.append("One network tells no epistemic uncertainty; an ensemble (caveat train --members 5) does.")
    return notes
