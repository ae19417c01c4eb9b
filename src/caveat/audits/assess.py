"""From what was observed to a record: split, calibrate, score, judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import torch
from torch import Tensor

from caveat import __version__, calibration, heads
from caveat.audits import catalog, judge, pictures, record
from caveat.errors import DataError, OptionError
from caveat.observations import Observations
from caveat.types import Batches

__all__ = ["Observed", "Options", "assess"]


@dataclass(frozen=True)
class Observed:
    """All that was observed of one model, ready to be judged."""

    known: Observations
    fit: Observations | None
    unknown: Mapping[str, Observations]
    head: heads.HeadLayer | None
    classes: tuple[str, ...]
    sources: Mapping[str, tuple[str, list[int]]]
    """Per set (`test`, `fit`, the unknown ones), where it is from and the shape of an input."""
    batches: Mapping[str, Batches]
    """The sets themselves, to take pictures from; may be empty."""
    model: tuple[str, int]
    """Name of the model's class and number of parameters."""


@dataclass(frozen=True)
class Options:
    """The resolved options of an audit; `audit` documents them."""

    scores: tuple[str, ...]
    calibrations: tuple[str, ...]
    head: str | None
    tune: float
    replicas: int
    seed: int


def assess(
    observed: Observed, options: Options, *, seconds: Mapping[str, float], say: Callable[[str], None]
) -> record.Record:
    """From observations to a record; needs no model any more.

    Raises
    ------
    DataError
        If a label is out of range.
    OptionError
        If `tune` leaves too little on either side.
    """
    known = observed.known
    _check_labels(known, "test")
    replicas, seed = options.replicas, options.seed
    tuning, judged = _split(len(known), options.tune, seed)
    fit_part, fit_words = known.part(tuning), f"the tuning part of test ({len(tuning)} samples)"
    if observed.fit is not None:
        _check_labels(observed.fit, "fit")
        fit_part, fit_words = observed.fit, f"fit ({len(observed.fit)} samples)"
    evaluation = known.part(judged)
    wrong = evaluation.logits.argmax(dim=1) != evaluation.labels
    notes = _notes(evaluation, wrong, observed)

    say("calibrating")
    calibrations = _calibrations(options.calibrations, known.part(tuning), evaluation, replicas, seed)
    say("scoring")
    fitted = catalog.fit(options.scores, fit_part, observed.head.head if observed.head else None)
    parts = {"test": evaluation, **observed.unknown}
    values, scoring = catalog.evaluate(fitted, parts)
    say("judging")
    unknown_values = {name: {k: v for k, v in by_set.items() if k != "test"} for name, by_set in values.items()}
    detections = [
        judge.detection(score, name, values[score]["test"], unknown, replicas=replicas, seed=seed)
        for score in fitted
        for name, unknown in unknown_values[score].items()
    ]
    both = bool(wrong.any()) and not bool(wrong.all())
    shown = "msp" if "msp" in fitted else next(iter(fitted))
    best = _best(detections) or shown
    return record.Record(
        caveat_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()},
        model=observed.model[0],
        parameters=observed.model[1],
        head=observed.head.name if observed.head else "",
        classes=list(observed.classes),
        sets=_set_summaries(observed, evaluation),
        split=(
            f"Of test, {len(tuning)} samples drawn by seed {seed} were set aside: calibrations are fitted on them. "
            f"All figures are judged on the other {len(judged)}. Scores are fitted on {fit_words}."
        ),
        calibrations=calibrations,
        scores=[
            record.Score.model_validate(
                {
                    "name": name, "family": score.family, "seconds_fit": score.seconds,
                    "seconds_score": scoring[name], "summary": catalog.describe(name)[0],
                    "source": catalog.describe(name)[1],
                    **judge.score_shape(values[name]["test"], wrong, unknown_values[name]),
                }
            )
            for name, score in fitted.items()
        ],
        detections=detections,
        selective=[
            judge.misclassification(name, values[name]["test"], wrong, replicas=replicas, seed=seed)
            for name in fitted
            if both
        ],
        sweeps=[judge.sweep(name, values[name]["test"], wrong, unknown_values[name]) for name in fitted],
        pictures=[
            picture
            for name in dict.fromkeys([shown, best])
            for picture in pictures.choose(
                name, values[name], parts, observed.batches, positions=judged, classes=observed.classes
            )
            if observed.batches
        ],
        notes=notes,
        seconds=dict(seconds),
    )  # fmt: skip


def _calibrations(
    names: Sequence[str], tuning: Observations, evaluation: Observations, replicas: int, seed: int
) -> list[record.Calibration]:
    maps: list[tuple[str, Callable[[Tensor], Tensor], dict[str, float]]] = [("none", lambda logits: logits, {})]
    for name in names:
        fitted = calibration.FROM_LOGITS[name](tuning.logits, tuning.labels)
        scalars = {k: v for k, v in vars(fitted).items() if isinstance(v, Tensor) and v.ndim == 0}
        maps.append((name, fitted, {k: float(v) for k, v in scalars.items()}))
    results: list[record.Calibration] = []
    for name, function, parameters in maps:
        summary, reliability = judge.known_summary(
            function(evaluation.logits), evaluation.labels, replicas=replicas, seed=seed
        )
        results.append(record.Calibration(name=name, parameters=parameters, summary=summary, reliability=reliability))
    return results


def _split(count: int, tune: float, seed: int) -> tuple[Tensor, Tensor]:
    size = round(tune * count)
    if size < 2 or count - size < 2:
        raise OptionError(f"tune: {tune} of {count} samples leaves {size} to fit and {count - size} to judge on")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:size].sort().values, order[size:].sort().values


def _check_labels(observed: Observations, name: str) -> None:
    classes = observed.logits.shape[1]
    if observed.logits.ndim != 2:
        raise DataError(f"{name}: expected a classifier's logits (n, c), got {tuple(observed.logits.shape)}")
    bad = ((observed.labels < 0) | (observed.labels >= classes)).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{name}: expected labels in [0, {classes - 1}] as the model has {classes} classes, got "
            f"{int(observed.labels[bad[0]])} at sample {int(bad[0])} ({len(bad)} of {len(observed)} are out of range)"
        )


def _set_summaries(observed: Observed, evaluation: Observations) -> list[record.SetSummary]:
    def summary(name: str, role: str, seen: Observations, confident: Observations) -> record.SetSummary:
        confidence = float(confident.logits.double().softmax(dim=1).amax(dim=1).mean())
        source, shape = observed.sources[name]
        return record.SetSummary.model_validate(
            {"name": name, "role": role, "source": source, "count": len(seen), "shape": shape,
             "mean_confidence": confidence}
        )  # fmt: skip

    rows = [summary("test", "known", observed.known, evaluation)]
    if observed.fit is not None:
        rows.append(summary("fit", "fit", observed.fit, observed.fit))
    return rows + [summary(name, "unknown", seen, seen) for name, seen in observed.unknown.items()]


def _notes(evaluation: Observations, wrong: Tensor, observed: Observed) -> list[str]:
    notes: list[str] = []
    if not wrong.any():
        notes.append(f"All {len(evaluation)} judged answers are right: misclassification detection can't be measured.")
    elif int(wrong.sum()) < 30:
        notes.append(f"Only {int(wrong.sum())} judged answers are wrong: figures on misclassification are uncertain.")
    if len(evaluation) < 1000:
        notes.append(f"Only {len(evaluation)} samples were judged: read the intervals, not the values.")
    present = len(evaluation.labels.unique())
    if present < len(observed.classes):
        notes.append(f"Only {present} of {len(observed.classes)} classes occur in the judged part of test.")
    if not observed.unknown:
        notes.append("No unknown set was given: nothing is known of how the network answers what it has never seen.")
    return notes


def _best(detections: Sequence[record.Detection]) -> str | None:
    """The score with the highest mean AUROC over the unknown sets."""
    totals: dict[str, list[float]] = {}
    for detection in detections:
        totals.setdefault(detection.score, []).append(detection.auroc.value)
    return max(totals, key=lambda name: sum(totals[name]) / len(totals[name])) if totals else None
