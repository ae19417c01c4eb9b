"""From what was observed to a record: split, calibrate, score, and write one chapter after the other."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from caveat import calibration, heads
from caveat.audits import classes, judge, learned, many, pictures
from caveat.audits.content import content
from caveat.audits.operate import conformal, operating
from caveat.audits.overlap import overlaps
from caveat.errors import CaveatError, OptionError
from caveat.guard import decision
from caveat.inputs import check_labels
from caveat.metrics.interval import interval_of_share
from caveat.observations import Observations, apart
from caveat.records import record
from caveat.records.base import stamp
from caveat.records.classes import PerClass
from caveat.scoring import catalog
from caveat.scoring.choose import choose
from caveat.scoring.kinds import Material
from caveat.types import Batches, Probe

__all__ = ["CHAPTERS", "Judged", "Observed", "Options", "assess", "split"]

MANY_CLASSES = 100
"""Beyond so many, calibrations that take minutes are fitted only if they are named."""
KEEP = 0.95
"""Share of in-distribution inputs that the previewed guard accepts."""


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
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """Scores that the model does not allow, and why."""


@dataclass(frozen=True)
class Options:
    """The resolved options of an audit; `audit` documents them."""

    scores: tuple[str, ...]
    calibrations: tuple[str, ...]
    head: str | None
    calibration_share: float
    replicas: int
    seed: int
    explicit: frozenset[str] = frozenset()
    """Scores and calibrations that the user named one by one: an error in one of these is not passed over."""


@dataclass(frozen=True)
class Judged:
    """All that the chapters of a record are written from: every split, score and decision is made once, here."""

    observed: Observed
    options: Options
    train: Observations | None
    """What scores are fitted on: of the training set, the samples that are not in the test set too."""
    held_out: Observations
    """The calibration split: calibrations, and half of it scores without a training set, are fitted on it."""
    evaluation: Observations
    """All figures are of these samples, and nothing was fitted on them."""
    positions: Tensor
    """Where the evaluation split's samples stand in the whole test set."""
    wrong: Tensor
    """Which answers of the evaluation split are wrong."""
    fitted: Mapping[str, catalog.FittedScore]
    values: Mapping[str, Mapping[str, Tensor]]
    """Per score and set (`test` is the evaluation split), the scores."""
    seconds: Mapping[str, float]
    """Per score, the time of applying it."""
    choice: record.Choice | None
    shown: str
    """The baseline score: what most people look at."""
    guards: Mapping[str, decision.Decision]
    """Per score, the guard that `guard fit` would make of this audit."""
    left_out: dict[str, str]
    """What does not fit this network or data, and why; a chapter may add to it."""

    @cached_property
    def overlaps(self) -> tuple[list[str], list[str]]:
        """Warnings and notes of samples that stand in two sets."""
        observed = self.observed
        others = {**observed.ood, **observed.unlabelled}
        return overlaps(observed.known, observed.train, others, observed.outliers)

    @property
    def parts(self) -> Mapping[str, Observations]:
        """The sets that are judged, by name."""
        return {"test": self.evaluation, **self.observed.ood}

    @property
    def chosen(self) -> str:
        """The score a guard would take."""
        return self.choice.score if self.choice else self.shown

    def ood_values(self, name: str) -> dict[str, Tensor]:
        """The scores of the OOD sets."""
        return {key: values for key, values in self.values[name].items() if key != "test"}


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
    judged = _judged(observed, options, say)
    say("judging")
    parts = {name: write(judged) for name, write in CHAPTERS.items()}
    return record.Record(
        **stamp(),
        settings={k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items() if k != "explicit"},
        model=observed.model[0],
        parameters=observed.model[1],
        head=observed.head.name if observed.head else "",
        classes=list(observed.classes),
        choice=judged.choice,
        seconds=dict(seconds),
        **parts,
    )


def _judged(observed: Observed, options: Options, say: Callable[[str], None]) -> Judged:
    known, seed = observed.known, options.seed
    check_labels(known.labels, known.logits, "test")
    if observed.train is not None:
        check_labels(observed.train.labels, observed.train.logits, "train")
    calibrating, positions = split(len(known), options.calibration_share, seed)
    held_out, evaluation = known.part(calibrating), known.part(positions)
    first, _ = decision.halves(held_out, seed)
    weights = observed.head.weights if observed.head else None
    train = apart(observed.train, known)
    left_out = dict(observed.left_out)
    say("scoring")
    material = Material(first if train is None else train, weights, first, observed.outliers)
    fitted = catalog.fit(options.scores, material, observed.probes, left_out=left_out)
    for name in options.explicit & set(left_out):
        raise OptionError(f"scores: {name} can't be had here: {left_out[name]}")
    if not fitted:
        raise OptionError(f"scores: none can be had of this model and data; {next(iter(left_out.values()))}")
    values, seconds = catalog.evaluate(fitted, {"test": evaluation, **observed.ood})
    say("choosing a score on in-distribution data")
    choice = choose(list(fitted), train, first, weights)
    shown = decision.baseline(fitted)
    guards: dict[str, decision.Decision] = {}
    for name in dict.fromkeys([choice.score if choice else shown, shown]):
        try:
            guards[name] = decision.of(fitted[name], held_out, keep=KEEP, seed=seed)
        except OptionError as error:  # too few samples for a threshold
            left_out[f"guard with {name}"] = str(error)
    return Judged(
        observed, options, train, held_out, evaluation, positions,
        evaluation.logits.argmax(dim=1) != evaluation.labels,
        fitted, values, seconds, choice, shown, guards, left_out,
    )  # fmt: skip


def _calibrations(judged: Judged) -> list[record.Calibration]:
    held_out, evaluation, options = judged.held_out, judged.evaluation, judged.options
    maps: list[tuple[str, Callable[[Tensor], Tensor], dict[str, float]]] = [("none", lambda logits: logits, {})]
    for name in options.calibrations:
        if evaluation.logits.shape[1] > MANY_CLASSES and name in calibration.CUBIC and name not in options.explicit:
            judged.left_out[name] = (
                f"Its cost grows with the cube of the classes; name it to fit it with {evaluation.logits.shape[1]}."
            )
            continue
        try:
            fitted = calibration.FROM_LOGITS[name](held_out.logits, held_out.labels)
        except CaveatError as error:
            if name in options.explicit:
                raise
            judged.left_out[name] = str(error)
            continue
        scalars = {k: v for k, v in vars(fitted).items() if isinstance(v, Tensor) and v.ndim == 0}
        maps.append((name, fitted, {k: float(v) for k, v in scalars.items()}))
    results: list[record.Calibration] = []
    for name, function, parameters in maps:
        summary, reliability = judge.performance(
            function(evaluation.logits), evaluation.labels, replicas=options.replicas, seed=options.seed
        )
        results.append(record.Calibration(name=name, parameters=parameters, summary=summary, reliability=reliability))
    return results


def _per_class(judged: Judged) -> list[PerClass]:
    guard = judged.guards.get(judged.chosen)
    return classes.per_class(
        judged.evaluation.logits, judged.evaluation.labels, judged.values[judged.chosen]["test"],
        None if guard is None else guard.promise.threshold, judged.observed.classes,
    )  # fmt: skip


def _scores(judged: Judged) -> list[record.Score]:
    return [
        record.Score.model_validate(
            {
                "name": name, "family": score.kind.family, "seconds_fit": score.seconds,
                "seconds_score": judged.seconds[name], "summary": catalog.describe(name)[0],
                "source": catalog.describe(name)[1],
                **judge.score_shape(judged.values[name]["test"], judged.wrong, judged.ood_values(name)),
            }
        )
        for name, score in judged.fitted.items()
    ]  # fmt: skip


def _detections(judged: Judged) -> list[record.Detection]:
    return [
        judge.detection(name, key, judged.values[name]["test"], values)
        for name in judged.fitted
        for key, values in judged.ood_values(name).items()
    ]


def _selective(judged: Judged) -> list[record.Selective]:
    if not judged.wrong.any() or judged.wrong.all():
        return []
    return [judge.misclassification(name, judged.values[name]["test"], judged.wrong) for name in judged.fitted]


def _sweeps(judged: Judged) -> list[record.Sweep]:
    return [
        judge.sweep(name, judged.values[name]["test"], judged.wrong, judged.ood_values(name)) for name in judged.fitted
    ]


def _conformal(judged: Judged) -> list[record.Conformal]:
    return conformal(list(calibration.CONFORMAL), judged.held_out, judged.evaluation, judged.observed.ood)


def _operating(judged: Judged) -> list[record.Operating]:
    """The preview of the guards: what each does with every set, on samples that it has not seen."""
    unlabelled = judged.observed.unlabelled
    return [
        operating(
            guard, judged.values[name]["test"], judged.wrong,
            judged.ood_values(name) | {key: guard.score(seen).double() for key, seen in unlabelled.items()},
        )
        for name, guard in judged.guards.items()
    ]  # fmt: skip


def _pictures(judged: Judged) -> list[record.Picture]:
    batches = judged.observed.batches
    if not batches:
        return []
    names = list(dict.fromkeys([judged.shown, judged.chosen]))
    try:
        return pictures.choose(
            names, judged.values, judged.parts, batches, positions=judged.positions,
            prints=judged.observed.known.fingerprints, classes=judged.observed.classes,
        )  # fmt: skip
    except CaveatError as error:
        judged.left_out["pictures"] = str(error)
        return []


def _sets(judged: Judged) -> list[record.SetSummary]:
    observed, held_out = judged.observed, judged.held_out
    calibrated = calibration.temperature.fit(held_out.logits, held_out.labels)

    def summary(name: str, role: str, seen: Observations, confident: Observations) -> record.SetSummary:
        confidence = float(confident.logits.double().softmax(dim=1).amax(dim=1).mean())
        estimated = float(calibrated(confident.logits.double()).softmax(dim=1).amax(dim=1).mean())
        source, shape = observed.sources[name]
        return record.SetSummary.model_validate(
            {"name": name, "role": role, "source": source, "count": len(seen), "shape": shape,
             "mean_confidence": confidence, "generated": name in observed.generated,
             "estimated_accuracy": estimated if role in ("test", "unlabelled") else None,
             "content": content(seen, labelled=role in ("test", "train"))}
        )  # fmt: skip

    rows = [summary("test", "test", observed.known, judged.evaluation)]
    if observed.train is not None:
        rows.append(summary("train", "train", observed.train, observed.train))
    rows += [summary(name, "ood", seen, seen) for name, seen in observed.ood.items()]
    return rows + [summary(name, "unlabelled", seen, seen) for name, seen in observed.unlabelled.items()]


def _split(judged: Judged) -> str:
    observed, count = judged.observed, len(judged.held_out)
    fitted_on = f"half of the calibration split ({count // 2} samples)"
    if judged.train is not None:
        fitted_on = f"train ({len(judged.train)} samples)"
    text = (
        f"Of test, {count} samples drawn by seed {judged.options.seed} are the calibration split: calibrations are "
        f"fitted on them, and a guard's threshold on the half of them that no score was fitted on. All figures are of "
        f"the other {len(judged.evaluation)}, the evaluation split. Scores are fitted on {fitted_on}."
    )
    if observed.outliers is not None:
        text += (
            f" Meta classifiers are fitted on half of the calibration split and on {len(observed.outliers)} auxiliary "
            "OOD inputs."
        )
    return text


def _notes(judged: Judged) -> list[str]:
    evaluation, wrong, observed = judged.evaluation, judged.wrong, judged.observed
    notes: list[str] = list(judged.overlaps[1])
    if not wrong.any():
        notes.append(f"All {len(evaluation)} judged answers are right: misclassification detection can't be measured.")
    elif int(wrong.sum()) < 30:
        notes.append(f"Only {int(wrong.sum())} judged answers are wrong: figures on misclassification are uncertain.")
    if len(evaluation) < 1000:
        notes.append(f"Only {len(evaluation)} samples were judged: read the intervals, not the values.")
    if not observed.ood:
        notes.append("No OOD set was given: nothing is known of how the network answers what it has never seen.")
    reasons: dict[str, list[str]] = {}
    for name, reason in judged.left_out.items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"Left out: {', '.join(names)}. {reason}" for reason, names in reasons.items()]
    return notes + _unreliable_estimates(judged)


def _unreliable_estimates(judged: Judged) -> list[str]:
    """An estimated accuracy holds only for in-distribution inputs."""
    guard = judged.guards.get(judged.chosen)
    if guard is None:
        return []
    refused = {
        name: interval_of_share(int((guard.score(seen).double() > guard.promise.threshold).sum()), len(seen))
        for name, seen in judged.observed.unlabelled.items()
    }
    return [
        f"Of {name}, {share.value:.0%} look unlike in-distribution data to {guard.score.name} ({1 - KEEP:.0%} would be "
        "usual): its estimated accuracy can't be relied on."
        for name, share in refused.items()
        if share.low > 1 - KEEP and share.value > 1.5 * (1 - KEEP)  # more than chance, and enough to matter
    ]


CHAPTERS: Mapping[str, Callable[[Judged], Any]] = {
    "sets": _sets,
    "split": _split,
    "calibrations": _calibrations,
    "confusion": lambda judged: classes.confusion(
        judged.evaluation.logits, judged.evaluation.labels, judged.observed.classes
    ),
    "per_class": _per_class,
    "warnings": lambda judged: (
        classes.warnings(judged.evaluation.logits, judged.evaluation.labels, judged.observed.classes)
        + judged.overlaps[0]
    ),
    "scores": _scores,
    "detections": _detections,
    "selective": _selective,
    "sweeps": _sweeps,
    "conformal": _conformal,
    "operating": _operating,
    "draws": lambda judged: many.draws(judged.evaluation, judged.observed.ood),
    "pictures": _pictures,
    "gradients": lambda judged: learned.strips(judged.evaluation, judged.wrong, judged.observed.ood),
    "meta_classifiers": lambda judged: learned.learned(
        judged.fitted, judged.evaluation, judged.wrong, judged.observed.ood, seed=judged.options.seed
    ),
    "notes": _notes,
}
"""A part of the record and what writes it, notes last; a new chapter of the report begins with a row here."""


def split(count: int, calibration_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the calibration split and of the evaluation split, ascending.

    Raises
    ------
    OptionError
        If a part would be too small.
    """
    size = round(calibration_share * count)
    if size < 4 or count - size < 2:
        raise OptionError(
            f"calibration_share: {calibration_share} of {count} samples leaves {size} to fit and "
            f"{count - size} to judge on"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:size].sort().values, order[size:].sort().values
