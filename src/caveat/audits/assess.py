"""From what was observed to a record: split, calibrate, score, judge."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import torch
from torch import Tensor

from caveat import __version__, calibration, heads
from caveat.audits import judge, learned, many, pictures
from caveat.audits.operate import conformal, operating
from caveat.errors import DataError, OptionError
from caveat.observations import Observations
from caveat.records import record
from caveat.scoring import catalog
from caveat.scoring.choose import choose
from caveat.types import Batches, Probe

__all__ = ["Observed", "Options", "assess"]


@dataclass(frozen=True)
class Observed:
    """All that was observed of one model, ready to be judged."""

    known: Observations
    train: Observations | None
    ood: Mapping[str, Observations]
    unlabelled: Mapping[str, Observations]
    generated: frozenset[str]
    """Names of the sets that are noise and the like."""
    head: heads.HeadLayer | None
    probes: Mapping[str, Probe]
    classes: tuple[str, ...]
    sources: Mapping[str, tuple[str, list[int]]]
    """Per set (`test`, `train`, the OOD ones), where it is from and the shape of an input."""
    batches: Mapping[str, Batches]
    """The sets themselves, to take pictures from; may be empty."""
    model: tuple[str, int]
    """Name of the model's class and number of parameters."""
    outliers: Observations | None = None
    """Auxiliary OOD inputs, for meta classifiers."""


@dataclass(frozen=True)
class Options:
    """The resolved options of an audit; `audit` documents them."""

    scores: tuple[str, ...]
    calibrations: tuple[str, ...]
    head: str | None
    calibration_share: float
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
        If `calibration_share` leaves too little on either side.
    """
    known = observed.known
    _check_labels(known, "test")
    replicas, seed = options.replicas, options.seed
    tuning, judged = split(len(known), options.calibration_share, seed)
    fit_part, fit_words = known.part(tuning), f"the calibration split of test ({len(tuning)} samples)"
    if observed.train is not None:
        _check_labels(observed.train, "train")
        fit_part, fit_words = observed.train, f"train ({len(observed.train)} samples)"
    evaluation = known.part(judged)
    wrong = evaluation.logits.argmax(dim=1) != evaluation.labels
    notes = _notes(evaluation, wrong, observed)

    say("calibrating")
    calibrations = _calibrations(options.calibrations, known.part(tuning), evaluation, replicas, seed)
    say("scoring")
    fitted = catalog.fit(
        options.scores, fit_part, observed.head.head if observed.head else None, observed.probes,
        held_out=known.part(tuning), outliers=observed.outliers,
    )  # fmt: skip
    parts = {"test": evaluation, **observed.ood}
    values, scoring = catalog.evaluate(fitted, parts)
    unknown_values = {name: {k: v for k, v in by_set.items() if k != "test"} for name, by_set in values.items()}
    say("choosing a score on in-distribution data")
    choice = choose(options.scores, fit_part, known.part(tuning), observed.head.head if observed.head else None)
    say("judging")
    detections = [
        judge.detection(score, name, values[score]["test"], ood, replicas=replicas, seed=seed)
        for score in fitted
        for name, ood in unknown_values[score].items()
    ]
    both = bool(wrong.any()) and not bool(wrong.all())
    shown = "msp" if "msp" in fitted else next(iter(fitted))
    chosen = choice.score if choice else shown
    preview = _operating(fitted, dict.fromkeys([chosen, shown]), known.part(tuning), values, wrong, observed)
    notes += _doubtful_estimates(preview, observed)
    best = _best(detections) or shown
    return record.Record(
        caveat_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()},
        model=observed.model[0],
        parameters=observed.model[1],
        head=observed.head.name if observed.head else "",
        classes=list(observed.classes),
        sets=_set_summaries(observed, evaluation, known.part(tuning)),
        split=(
            f"Of test, {len(tuning)} samples drawn by seed {seed} were set aside: calibrations are fitted on them. "
            f"All figures are judged on the other {len(judged)}. Scores are fitted on {fit_words}."
            + ("" if observed.outliers is None else " Meta classifiers are fitted on the calibration split and on "
               f"{len(observed.outliers)} auxiliary OOD inputs.")
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
        conformal=conformal(list(calibration.CONFORMAL), known.part(tuning), evaluation, observed.ood),
        choice=choice,
        operating=preview,
        draws=many.draws(evaluation, observed.ood),
        pictures=[
            picture
            for name in dict.fromkeys([shown, chosen, best] if observed.batches else [])
            for picture in pictures.choose(
                name, values[name], parts, observed.batches, positions=judged, classes=observed.classes
            )
        ],
        notes=notes,
        seconds=dict(seconds),
        strips=learned.strips(evaluation, wrong, observed.ood),
        learned=learned.learned(fitted, evaluation, wrong, observed.ood, seed=seed),
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
        summary, reliability = judge.performance(
            function(evaluation.logits), evaluation.labels, replicas=replicas, seed=seed
        )
        results.append(record.Calibration(name=name, parameters=parameters, summary=summary, reliability=reliability))
    return results


def split(count: int, calibration_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the calibration split and of the evaluation split, ascending.

    Raises
    ------
    OptionError
        If a part would be too small.
    """
    size = round(calibration_share * count)
    if size < 2 or count - size < 2:
        raise OptionError(
            f"calibration_share: {calibration_share} of {count} samples leaves {size} to fit and "
            f"{count - size} to judge on"
        )
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


def _operating(
    fitted: Mapping[str, catalog.FittedScore],
    names: Iterable[str],
    tuning: Observations,
    values: Mapping[str, Mapping[str, Tensor]],
    wrong: Tensor,
    observed: Observed,
) -> list[record.Operating]:
    """The preview of a guard with each of these scores; its threshold comes from the calibration split."""
    found: list[record.Operating] = []
    for name in names:
        if fitted[name].family == "meta":
            continue  # its threshold would rest on the data that it was fitted on
        others = {key: seen for key, seen in values[name].items() if key != "test"}
        others |= {key: fitted[name](seen).double() for key, seen in observed.unlabelled.items()}
        preview = operating(name, fitted[name](tuning).double(), values[name]["test"], wrong, others)
        if preview is not None:
            found.append(preview)
    return found


def _doubtful_estimates(preview: Sequence[record.Operating], observed: Observed) -> list[str]:
    """An estimated accuracy holds only for inputs of the in-distribution kind."""
    if not preview:
        return []
    first = preview[0]
    return [
        f"Of {name}, {1 - first.accepted[name]:.0%} look unlike in-distribution data to {first.score} "
        f"({1 - first.keep:.0%} "
        "would be usual): its estimated accuracy can't be relied on."
        for name in observed.unlabelled
        if 1 - first.accepted[name] > 2 * (1 - first.keep)
    ]


def _set_summaries(observed: Observed, evaluation: Observations, tuning: Observations) -> list[record.SetSummary]:
    calibrated = calibration.temperature.fit(tuning.logits, tuning.labels)

    def summary(name: str, role: str, seen: Observations, confident: Observations) -> record.SetSummary:
        confidence = float(confident.logits.double().softmax(dim=1).amax(dim=1).mean())
        estimated = float(calibrated(confident.logits.double()).softmax(dim=1).amax(dim=1).mean())
        source, shape = observed.sources[name]
        return record.SetSummary.model_validate(
            {"name": name, "role": role, "source": source, "count": len(seen), "shape": shape,
             "mean_confidence": confidence, "generated": name in observed.generated,
             "estimated_accuracy": estimated if role in ("test", "unlabelled") else None}
        )  # fmt: skip

    rows = [summary("test", "test", observed.known, evaluation)]
    if observed.train is not None:
        rows.append(summary("train", "train", observed.train, observed.train))
    rows += [summary(name, "ood", seen, seen) for name, seen in observed.ood.items()]
    return rows + [summary(name, "unlabelled", seen, seen) for name, seen in observed.unlabelled.items()]


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
    if not observed.ood:
        notes.append("No OOD set was given: nothing is known of how the network answers what it has never seen.")
    return notes


def _best(detections: Sequence[record.Detection]) -> str | None:
    """The score with the highest mean AUROC over the OOD sets."""
    totals: dict[str, list[float]] = {}
    for detection in detections:
        totals.setdefault(detection.score, []).append(detection.auroc.value)
    return max(totals, key=lambda name: sum(totals[name]) / len(totals[name])) if totals else None
