"""`audit`: observe once, then answer every question from what was observed."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from caveat import calibration, fitted, heads
from caveat.audits import arrays, cache, pictures
from caveat.audits.assess import Observed, Options, assess, split
from caveat.audits.attacked import attacked
from caveat.errors import DataError, OptionError, known_name
from caveat.observations import DRAWS, Observations, check_eval, check_inputs, run
from caveat.records.record import Record
from caveat.scoring import catalog
from caveat.scoring import outliers as noise
from caveat.scoring import probes as probing
from caveat.types import Batches, Drawing, Probe

__all__ = ["audit", "audit_arrays"]


def audit(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    test: Batches,
    *,
    train: Batches | None = None,
    ood: Mapping[str, Batches] | None = None,
    unlabelled: Mapping[str, Batches] | None = None,
    outliers: Batches | None = None,
    scores: Sequence[str] | None = None,
    calibrations: Sequence[str] | None = None,
    head: str | None = None,
    attack_radii: Sequence[float] = (),
    attack_norm: int | float = math.inf,
    attack_samples: int = 200,
    calibration_share: float = 0.2,
    replicas: int = 200,
    seed: int = 0,
    folder: Path | None = None,
    made_by: str = "",
    say: Callable[[str], None] | None = None,
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
    OOD
        Sets of inputs that belong to no class, by name; their labels are not used.
    unlabelled
        Sets of the in-distribution kind whose labels nobody knows, by name: their accuracy is estimated.
    outliers
        Auxiliary OOD inputs, for meta classifiers; by default 200 of uniform noise in the range of in-distribution
        inputs.
    scores, calibrations
        Names from the tables. By default all calibrations, and all scores that share one plain pass; the score `all`
        adds those that look at several layers or at gradients, ask the network again, or learn from its mistakes.
    head
        Name of the layer that produces the logits; found by itself if None.
    attack_radii, attack_norm, attack_samples
        Attack as many in-distribution inputs (in [0, 1]) within each radius of norm 1, 2 or inf; none by default.
    calibration_share
        Share of `test` that is set aside to fit calibrations (and scores, without `train`); never judged on.
    replicas
        Bootstrap replicas behind every interval.
    folder
        Keep the observations there (memory-mapped while judged) and reuse them if the same pass is asked for again.
    made_by
        How the model was made, for people: noted in `folder`, never imported.
    say
        Called with a line about each step.

    Raises
    ------
    DataError
        If a set is empty, differs in shape, holds NaN, or a label is out of range.
    ModelError
        If the model is in training mode, has no head (and a score needs one), or gives NaN.
    OptionError
        If a name is in no table, or `calibration_share` leaves too little on either side.
    """
    say = say or _silent
    families = catalog.families()
    names = catalog.resolve(scores, draws=isinstance(model, Drawing))
    calibration_names = list(calibration.FROM_LOGITS) if calibrations is None else list(calibrations)
    for name in calibration_names:
        known_name("calibrations", name, calibration.FROM_LOGITS)
    if not 0 < calibration_share < 1:
        raise OptionError(f"calibration_share: expected a share in (0, 1), got {calibration_share}")
    ood, unlabelled = dict(ood or {}), dict(unlabelled or {})
    if reserved := {"test", "train", "outliers", "correct", "wrong", "model", "head", "about"} & {*ood, *unlabelled}:
        raise OptionError(f"OOD: the name {reserved.pop()!r} is taken; choose another")
    if twice := set(ood) & set(unlabelled):
        raise OptionError(f"unlabelled: the name {twice.pop()!r} is taken by an OOD set; choose another")
    check_eval(model)
    if attack_radii and isinstance(model, Drawing):
        raise OptionError("attack_radii: a posterior's mean has no gradient here; attack one of its networks")

    started = time.perf_counter()
    layer = _head(model, test, head, needed=any(families[name] not in ("logits", "draws") for name in names))
    sets = {"test": test} | ({"train": train} if train is not None else {}) | ood | unlabelled
    _same_shape(sets)
    options = Options(tuple(names), tuple(calibration_names), head, calibration_share, replicas, seed)
    keep = None if folder is None else folder / "observations"
    made, example = _probes(names, model, test, train, layer, options)
    if any(families[name] == "meta" for name in names):
        sets["outliers"] = noise.like(example, torch.Generator().manual_seed(seed)) if outliers is None else outliers
        _same_shape(sets)
    seen: dict[str, Observations] = {}
    seconds: dict[str, float] = {}
    for name, batches in sets.items():
        say(f"observing {name}")
        before = time.perf_counter()
        # nothing is fitted on the gradients of training data, so no time is spent on them
        own = {key: probe for key, probe in made.items() if (name, key) != ("train", "gradients")}
        seen[name] = cache.observe(
            model, batches, folder=keep, file=cache.file_name(name), head=layer, name=name, probes=own
        )
        seconds[f"observe {name}"] = time.perf_counter() - before
    classes = _classes(test, seen["test"].logits.shape[1])
    if keep is not None:
        about = {
            "classes": classes, "shape": _shape(test), "model": made_by, "train": train is not None,
            "outliers": "outliers" in seen,
            "probes": {name: fitted.arrays(probe)[1] for name, probe in made.items()},
        }  # fmt: skip
        cache.keep_model(model, layer, keep, about)
    observed = Observed(
        known=seen["test"],
        train=seen.get("train"),
        ood={name: seen[name] for name in ood},
        unlabelled={name: seen[name] for name in unlabelled},
        generated=frozenset(name for name, batches in sets.items() if getattr(batches, "generated", False)),
        head=layer,
        probes=made,
        classes=classes,
        sources={name: (str(getattr(b, "name", type(b).__name__)), _shape(b)) for name, b in sets.items()},
        batches=sets,
        model=(type(model).__name__, sum(p.numel() for p in model.parameters())),
        outliers=seen.get("outliers"),
    )
    judged = assess(observed, options, seconds=seconds, say=say)
    if attack_radii:
        before = time.perf_counter()
        known, generator = seen["test"], torch.Generator().manual_seed(seed)
        found = attacked(
            model, test, split(len(known), calibration_share, seed)[1], known.labels,
            radii=attack_radii, norm=attack_norm,
            samples=attack_samples, generator=generator, classes=classes, say=say,
        )  # fmt: skip
        judged = judged.model_copy(update={"attacked": [found]})
        judged.seconds["attack"] = float(f"{time.perf_counter() - before:.6g}")
    judged.seconds["all"] = float(f"{time.perf_counter() - started:.6g}")
    return judged


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
    families = catalog.families()
    allowed = {"logits"} | ({"features"} if observed.known.features is not None else set())
    allowed |= {"head"} if observed.head is not None else set()
    drawn = DRAWS in observed.known.probed
    allowed |= {"draws"} if drawn else set()
    names = catalog.resolve(scores, draws=drawn)
    missing = [name for name in names if families[name] not in allowed]
    if scores is not None and missing:
        raise OptionError(f"scores: {missing[0]} needs {families[missing[0]]}, which {path} does not hold")
    calibration_names = list(calibration.FROM_LOGITS) if calibrations is None else list(calibrations)
    for name in calibration_names:
        known_name("calibrations", name, calibration.FROM_LOGITS)
    kept_names = tuple(name for name in names if families[name] in allowed)
    options = Options(kept_names, tuple(calibration_names), None, calibration_share, replicas, seed)
    judged = assess(observed, options, seconds={}, say=say or _silent)
    judged.seconds["all"] = float(f"{time.perf_counter() - started:.6g}")
    return judged


def _head(model: nn.Module, test: Batches, name: str | None, *, needed: bool) -> heads.HeadLayer | None:
    if not needed:
        return None
    first = next(iter(test), None)
    if first is None:
        raise DataError("test: expected at least one batch of inputs, got an empty set")
    check_inputs(*first, "test")
    inputs, anchor = first[0][:2], next(model.parameters(), None)
    if anchor is not None:
        inputs = inputs.to(anchor.device, anchor.dtype)
    with torch.no_grad():
        run(model, inputs, "test")
    return heads.find(model, inputs, name=name)


def _probes(
    names: Sequence[str],
    model: nn.Module,
    test: Batches,
    train: Batches | None,
    head: heads.HeadLayer | None,
    options: Options,
) -> tuple[dict[str, Probe], torch.Tensor]:
    """The probes, and some in-distribution inputs: options are chosen on training data, or on what nothing is judged
    on."""
    families = catalog.families()
    if all(families[name] in ("logits", "draws", "features", "head") for name in names):
        return {}, torch.empty(0)
    if train is not None or not any(families[name] in ("layers", "model") for name in names):
        inputs, labels = next(iter(test if train is None else train))  # that of gradients has no options
        return probing.probes(names, model, inputs, labels, head), inputs
    all_labels = torch.cat([labels for _, labels in test])
    rows = split(len(all_labels), options.calibration_share, options.seed)[0][:512]
    chosen = pictures.take(test, rows)
    if chosen is None:
        raise OptionError(
            "train: the loader of test is shuffled; scores that need options chosen want a training set then"
        )
    return probing.probes(names, model, chosen, all_labels[rows], head), chosen


def _same_shape(sets: Mapping[str, Batches]) -> None:
    expected = _shape(sets["test"])
    for name, batches in sets.items():
        shape = _shape(batches)
        if shape != expected:
            raise DataError(
                f"{name}: expected inputs of shape {tuple(expected)} as in test, got {tuple(shape)}; bring them to one "
                f"size and number of channels, on the command line with +{'x'.join(map(str, expected[-2:]))} and "
                f"{'+grey' if expected[:1] == [1] else '+rgb'}"
            )


def _shape(batches: Batches) -> list[int]:
    own = getattr(batches, "shape", None)
    if own is not None:
        return list(own)
    first = next(iter(batches), None)
    return [] if first is None else list(first[0].shape[1:])


def _classes(test: Batches, count: int) -> tuple[str, ...]:
    names = getattr(test, "classes", None)
    if names is None or len(names) < count:
        return tuple(map(str, range(count)))
    return tuple(names[:count])


def _silent(_: str) -> None: ...
