"""`audit`: observe once, then answer every question from what was observed."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caveat import calibration, devices, evaluation, fitted, models
from caveat.attacks import Ball
from caveat.attacks.transformation import Transformation
from caveat.audits import arrays, cache, certified, many, transformed
from caveat.audits.assess import Observed, Options, assess, split
from caveat.audits.attacked import attacked, boxed, check, gradient_note
from caveat.audits.certified import Method
from caveat.batches import Data, Inputs
from caveat.bounds import rounding
from caveat.errors import OptionError, known_name
from caveat.guard.decision import halved
from caveat.inputs import (
    OPTION_SAMPLES,
    Opened,
    check_same_classes,
    check_same_shapes,
    check_same_units,
    class_names,
    largest,
    opened,
    remarks,
    sampled,
    take,
)
from caveat.observations import DRAWS, Observations
from caveat.posteriors.network import Predictive
from caveat.records.record import Record
from caveat.scoring import catalog
from caveat.scoring import outliers as generated
from caveat.scoring.kinds import kind_of
from caveat.scoring.plan import Plan, plan
from caveat.types import Batches, Drawing

__all__ = ["audit", "audit_arrays", "named_sets"]

RESERVED = {"test", "train", "outliers", "correct", "wrong", "model", "head", "about"}
"""Names that files and tables of an audit use themselves."""


def audit(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    test: Data,
    *,
    train: Data | None = None,
    ood: Mapping[str, Data] | None = None,
    unlabelled: Mapping[str, Data] | None = None,
    outliers: Data | None = None,
    scores: Sequence[str] | None = None,
    calibrations: Sequence[str] | None = None,
    classes: Sequence[str | int] | None = None,
    head: str | None = None,
    features: str | None = None,
    attack_radii: Sequence[float] = (),
    attack_norm: int | float = math.inf,
    attack_samples: int = 200,
    attack_certify: str | None = None,
    attack_smallest: int = 24,
    attack_transform: Transformation | None = None,
    calibration_share: float = 0.2,
    replicas: int = 200,
    seed: int = 0,
    folder: Path | None = None,
    made_by: str = "",
    unpack: Callable[[Any], Any] | None = None,
    say: Callable[[str], None] | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
) -> Record:
    """Audit a classifier: accuracy, calibration, misclassification, and detection of OOD inputs.

    Parameters
    ----------
    model
        Any classifier in evaluation mode that maps inputs `(n, ...)` to logits `(n, c)`; or a posterior with its model
        (`posteriors.Predictive`): then the record tells apart what more data would remove and what stays.
    test
        In-distribution data the model was not trained on; labels in [0, c).
    train
        In-distribution data (training data) the scores are fitted on; without it the calibration split of `test`
        serves.
    ood
        Sets of inputs that belong to no class, by name; their labels are not used.
    unlabelled
        Sets of the in-distribution kind whose labels nobody knows, by name: their accuracy is estimated.
    outliers
        Auxiliary OOD inputs, for meta classifiers; by default 200 of uniform noise in the range of in-distribution
        inputs.
    scores, calibrations
        Names from the tables. By default all calibrations, and all scores that share one plain pass; the score `all`
        adds those that look at several layers or at gradients, ask the network again, or learn from its mistakes.
    classes
        Names or numbers of the outputs that are the classes of the sets; all by default.
    head
        Name of the layer that produces the logits; found by itself if None.
    features
        Name of a layer whose input the feature scores look at, for networks whose logits are no linear map of
        anything; scores that need the head's weights are left out.
    attack_radii, attack_norm, attack_samples
        Attack as many in-distribution inputs (in [0, 1]) within each radius of norm 1, 2 or inf; none by default.
    attack_certify
        `interval` or `deeppoly`: bounds that prove which of their answers no change within the radius alters, and
        how well OOD inputs stay detected.
    attack_smallest
        Of how many attacked inputs, answered rightly, the smallest adversarial perturbation is looked for.
    attack_transform
        Rotations, shifts, ... (`attacks.transformation.Transformation`) that pictures are attacked with, 30 of them at
        most; and what is certified of them, by `deeppoly` unless `attack_certify` says otherwise.
    calibration_share
        Share of `test` that is set aside to fit calibrations (and scores, without `train`); never judged on.
    replicas
        Simulated data sets behind the interval of the ECE; the others need none.
    folder
        Keep the observations there (memory-mapped while judged) and reuse them if the same pass is asked for again.
    made_by
        How the model was made, for people: noted in `folder`, never imported.
    unpack
        Makes `(inputs, labels)` of a batch of any set, where the forms of `batches.pair` are not enough.
    say
        Called with a line about each step.
    device, dtype
        Where the network runs, such as `auto` or `cuda`, and in which precision: `bfloat16` and `float16` are autocast.
        By default where and as it is. Everything else is computed on the CPU, in single precision at least.

    Sets are DataLoaders, lists of batches, a `Dataset`, or arrays `(X, y)`. Batches are `(inputs, labels)`, with more
    after the labels if need be, a dictionary with a key `labels` (or `label`, `y`, `target`), or inputs alone where
    there are no labels. A network may return its logits among other outputs (`logits`), or one logit for two classes.

    Raises
    ------
    DataError
        If a set is empty, differs in shape, holds NaN, or a label is out of range.
    ModelError
        If the model is in training mode, has no head (and a score needs one), or gives NaN.
    OptionError
        If a name is in no table, or `calibration_share` leaves too little on either side.
    """
    say, started = say or _silent, time.perf_counter()
    options = _options(
        scores, calibrations, draws=isinstance(model, Drawing), head=head, calibration_share=calibration_share,
        replicas=replicas, seed=seed,
    )  # fmt: skip
    ood, unlabelled = named_sets("ood", ood), named_sets("unlabelled", unlabelled)
    _check_names(ood, unlabelled)
    evaluation.check(model)
    given = {"test": test} | ({"train": train} if train is not None else {}) | ood | unlabelled
    sets = {name: opened(batches, name, unpack) for name, batches in given.items()}
    with devices.running(model, device, dtype) as place:
        model = models.adapted(model, sets["test"].first[0], name="test")
        model, told = _subset(model, classes, sets["test"])
        method = _attackable(model, sets["test"], attack_radii, attack_certify, attack_transform, attack_smallest)
        planned = plan(
            options.scores, model, sets["test"].first[0], head=head, features=features, explicit=options.explicit,
            options=lambda: _samples(sets, options, seed),
        )  # fmt: skip
        if planned.learns_mistakes:
            drawn = generated.like(sets["test"].first[0], torch.Generator().manual_seed(seed))
            sets["outliers"] = opened(drawn if outliers is None else outliers, "outliers", unpack)
        _check_alike(sets)
        keep, named = None if folder is None else folder / "observations", ""
        if keep is not None:
            cache.begin(keep)
        seen, seconds = _observed(model, sets, planned, keep, say, place.dtype)
        titles = class_names(sets["test"], seen["test"].logits.shape[1])
        if keep is not None:
            about = {
                "columns": getattr(sets["test"].batches, "columns", None), "classes": titles,
                "shape": sets["test"].shape, "model": made_by, "train": train is not None,
                "outliers": "outliers" in seen, "calibration_share": calibration_share, "seed": seed,
                "scores": list(planned.names),
                "largest": largest(*(sets[name] for name in ("test", "train") if name in sets)),
                "posterior": model.description if isinstance(model, Predictive) else None,
                "adapted": model.description if isinstance(model, models.Adapted) else None,
                "probes": {name: fitted.arrays(probe)[1] for name, probe in planned.probes.items()},
                "autocast": place.autocast,
            }  # fmt: skip
            named = cache.finish(model, planned.head, keep, sets, about)
        observed = _together(model, sets, seen, planned, titles, {"ood": list(ood), "unlabelled": list(unlabelled)})
        judged = assess(observed, replace(options, scores=planned.names), seconds=seconds, say=say)
        judged = judged.model_copy(update={"observations": named})
        judged.settings.update(place.settings)
        judged.warnings.extend(remarks(sets))
        judged.notes.extend(told)
        if isinstance(model, Predictive):
            judged.warnings.extend(_of_posterior(model, sets["test"].batches, seen["test"]))
        if attack_radii:
            judged = _attacked(
                judged, model, {name: (sets[name].batches, seen[name]) for name in ("test", *ood)}, titles, say,
                radii=attack_radii, norm=attack_norm, samples=attack_samples, certify=method, nearest=attack_smallest,
            )  # fmt: skip
        if attack_transform is not None:
            judged = _transformed(
                judged, model, sets["test"].batches, seen["test"], titles, say,
                transformation=attack_transform, samples=attack_samples, method=method or "deeppoly",
            )  # fmt: skip
        judged.seconds["all"] = _short(time.perf_counter() - started)
        return judged


def _attackable(
    model: nn.Module,
    test: Opened,
    radii: Sequence[float],
    certify: str | None,
    change: Transformation | None,
    nearest: int,
) -> Method | None:
    """The bounds that are asked for; refuse what cannot be attacked or certified, before any work."""
    first = test.first[0]
    asked = [name for name, given in (("attack_radii", radii), ("attack_transform", change)) if given]
    if asked and isinstance(model, Drawing):
        raise OptionError(f"{asked[0]}: expected one network, got posterior samples; attack one of its networks")
    if change is not None:
        transformed.check(first, change)
    if asked:
        boxed(first, option=asked[0])
    if radii:
        check(radii, nearest)
    return None if certify is None else certified.check(model, first, certify, asked=bool(asked))


def _attacked(  # noqa: PLR0913  # what an attack is made of
    judged: Record,
    model: nn.Module,
    sets: Mapping[str, tuple[Batches, Observations]],
    classes: tuple[str, ...],
    say: Callable[[str], None],
    *,
    radii: Sequence[float],
    norm: int | float,
    samples: int,
    certify: Method | None,
    nearest: int,
) -> Record:
    """The record with the accuracy under attack, of inputs that it was judged on; with what is certified of them and
    of OOD inputs, where that is asked for.
    """
    before = time.perf_counter()
    test, known = sets["test"]
    assert known.fingerprints is not None
    rows, seed = _judged(judged, known)
    found = attacked(
        model, test, rows, known.labels, known.fingerprints, radii=radii, norm=norm, samples=samples, classes=classes,
        nearest=nearest, certify=certify, say=say, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    if certify is not None:
        others = {name: pair for name, pair in sets.items() if name != "test"}
        balls = [Ball(norm, item.radius, 0, 1) for item in found.radii[1:]]
        kept = certified.guaranteed(
            model, known.part(rows), others, balls, samples=samples, method=certify, say=say,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        lost = [name for name in others if name not in {item.ood for item in kept}]
        told = [note] if (note := rounding(model)) else []
        if lost:
            told.append(f"Not certified: {', '.join(lost)}. None of the inputs is one tensor of numbers in [0, 1].")
        found = found.model_copy(update={"guaranteed": kept, "notes": [*found.notes, *told]})
    notes = [*judged.notes, *found.notes, *([note] if (note := gradient_note(found)) else [])]
    judged.seconds["attack"] = _short(time.perf_counter() - before)
    return judged.model_copy(update={"attacked": [found], "notes": notes})


def _transformed(  # noqa: PLR0913  # as above
    judged: Record,
    model: nn.Module,
    test: Batches,
    known: Observations,
    classes: tuple[str, ...],
    say: Callable[[str], None],
    *,
    transformation: Transformation,
    samples: int,
    method: Method,
) -> Record:
    """The record with the accuracy under rotations, shifts, ... of pictures that it was judged on."""
    before = time.perf_counter()
    assert known.fingerprints is not None
    rows, seed = _judged(judged, known)
    found = transformed.transformed(
        model, test, rows, known.labels, known.fingerprints, transformation, samples=min(samples, transformed.SAMPLES),
        method=method, classes=classes, say=say, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    judged.seconds["transform"] = _short(time.perf_counter() - before)
    return judged.model_copy(update={"transformed": [found]})


def _judged(judged: Record, known: Observations) -> tuple[torch.Tensor, int]:
    """The rows that the record was judged on, and its seed."""
    share, seed = float(str(judged.settings["calibration_share"])), int(str(judged.settings["seed"]))
    return split(len(known), share, seed)[1], seed


def _check_alike(sets: Mapping[str, Opened]) -> None:
    """Refuse sets that no one network is for."""
    check_same_shapes(sets)
    check_same_classes(sets["test"], sets.get("train"))
    check_same_units(sets["test"], sets.get("train"))


def _subset(model: nn.Module, classes: Sequence[str | int] | None, test: Opened) -> tuple[nn.Module, list[str]]:
    """The network with these outputs alone, and a note of it; the network itself without any."""
    if classes is None:
        return model, []
    chosen, numbers = models.chosen(model, classes, test.classes)
    listed = ", ".join(map(str, numbers))
    named = "" if test.classes is None else f", which are taken for {', '.join(test.classes)}"
    return chosen, [f"Of the network's outputs only {listed} are used{named}: its probabilities are of these alone."]


def _of_posterior(model: Predictive, test: Batches, seen: Observations) -> list[str]:
    rows = torch.arange(min(len(seen), OPTION_SAMPLES))
    assert seen.fingerprints is not None
    inputs = take(test, rows, seen.fingerprints, "test")
    return many.weaker(model.model, inputs, seen.labels[rows], seen.logits[rows])


def _together(
    model: nn.Module,
    sets: Mapping[str, Opened],
    seen: Mapping[str, Observations],
    planned: Plan,
    classes: tuple[str, ...],
    roles: Mapping[str, Sequence[str]],
) -> Observed:
    return Observed(
        known=seen["test"],
        train=seen.get("train"),
        ood={name: seen[name] for name in roles["ood"]},
        unlabelled={name: seen[name] for name in roles["unlabelled"]},
        generated=frozenset(name for name, one in sets.items() if one.generated),
        head=planned.head,
        probes=planned.probes,
        classes=classes,
        sources={name: (one.source, list(one.shape)) for name, one in sets.items()},
        batches={name: one.batches for name, one in sets.items()},
        model=(models.title(model), sum(p.numel() for p in model.parameters())),
        outliers=seen.get("outliers"),
        left_out=planned.left_out,
    )


def audit_arrays(
    path: Path,
    *,
    scores: Sequence[str] | None = None,
    calibrations: Sequence[str] | None = None,
    calibration_share: float = 0.2,
    replicas: int = 200,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Record:
    """Audit what any framework saved: logits, labels and perhaps features in an npz file.

    See `audits.arrays.observed` for its arrays and what is raised, and `audit` for the options. Scores by default: all
    that the arrays allow.
    """
    started = time.perf_counter()
    observed = arrays.observed(path)
    _check_names(observed.ood, {})
    drawn = DRAWS in observed.known.probed
    options = _options(
        scores, calibrations, draws=drawn, head=None, calibration_share=calibration_share, replicas=replicas, seed=seed
    )
    left_out = {name: reason for name in options.scores if (reason := _missing(name, observed))}
    for name in options.explicit & set(left_out):
        raise OptionError(f"scores: {name} needs {left_out[name]}, which {path} does not hold")
    allowed = tuple(name for name in options.scores if name not in left_out)
    judged = assess(observed, replace(options, scores=allowed), seconds={}, say=say or _silent)
    judged.seconds["all"] = _short(time.perf_counter() - started)
    return judged


def _missing(name: str, observed: Observed) -> str:
    """What a score needs that arrays do not hold; empty if nothing is missing."""
    kind = kind_of(name)
    if not kind.one_pass:
        return f"the {kind.family} of a model"
    if kind.needs_features and observed.known.features is None:
        return "features"
    return "weight and bias of the head" if kind.needs_head and observed.head is None else ""


def _options(
    scores: Sequence[str] | None,
    calibrations: Sequence[str] | None,
    *,
    draws: bool,
    head: str | None,
    calibration_share: float,
    replicas: int,
    seed: int,
) -> Options:
    names = catalog.resolve(scores, draws=draws)
    fits = list(calibration.FROM_LOGITS) if calibrations is None else list(calibrations)
    for name in fits:
        known_name("calibrations", name, calibration.FROM_LOGITS)
    if not 0 < calibration_share < 1:
        raise OptionError(f"calibration_share: expected a share in (0, 1), got {calibration_share}")
    if replicas < 1:
        raise OptionError(f"replicas: expected at least 1, got {replicas}")
    explicit = frozenset({*(scores or ()), *(calibrations or ())} - {"all"})
    return Options(tuple(names), tuple(fits), head, calibration_share, replicas, seed, explicit)


def named_sets(option: str, sets: object) -> dict[str, Data]:
    """Sets by name, refused where they are none.

    Raises
    ------
    OptionError
        If they are no dictionary.
    """
    if sets is not None and not isinstance(sets, Mapping):
        raise OptionError(f"{option}: expected a dict of name to set, got a {type(sets).__name__}")
    return dict(sets or {})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # as it was annotated


def _check_names(ood: Mapping[str, object], unlabelled: Mapping[str, object]) -> None:
    if reserved := RESERVED & {*ood, *unlabelled}:
        raise OptionError(f"ood: the name {reserved.pop()!r} is taken; choose another")
    if twice := set(ood) & set(unlabelled):
        raise OptionError(f"unlabelled: the name {twice.pop()!r} is taken by an OOD set; choose another")


def _samples(sets: Mapping[str, Opened], options: Options, seed: int) -> tuple[Inputs, torch.Tensor]:
    """In-distribution samples to choose options on: training data, or a part that no threshold and figure rests on."""
    if "train" in sets:
        return sets["train"].first

    def rows(count: int) -> torch.Tensor:
        held_out = split(count, options.calibration_share, seed)[0]
        return held_out[halved(len(held_out), seed)[0]]

    return sampled(sets["test"], rows)


def _observed(
    model: nn.Module,
    sets: Mapping[str, Opened],
    planned: Plan,
    keep: Path | None,
    say: Callable[[str], None],
    dtype: str,
) -> tuple[dict[str, Observations], dict[str, float]]:
    seen: dict[str, Observations] = {}
    seconds: dict[str, float] = {}
    for name, one in sets.items():
        say(f"observing {name}")
        before = time.perf_counter()
        seen[name] = cache.observe(
            model, one.batches, folder=keep, file=cache.file_name(name), head=planned.head, name=name,
            probes=planned.probes_of(training=name == "train"), dtype=dtype,
        )  # fmt: skip
        seconds[f"observe {name}"] = time.perf_counter() - before
    return seen, seconds


def _short(seconds: float) -> float:
    return float(f"{seconds:.6g}")


def _silent(_: str) -> None: ...
