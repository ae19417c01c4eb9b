"""`audit_multilabel`: observe once, then say how far the labels that a network gives may be trusted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import devices, models
from caveat.audits import cache
from caveat.audits.assess import split
from caveat.audits.audit import named_sets
from caveat.audits.content import content
from caveat.audits.judge import detection, share
from caveat.audits.multilabel import judge
from caveat.audits.overlap import overlaps
from caveat.audits.regression.judge import kept
from caveat.batches import Data
from caveat.calibration import per_label
from caveat.errors import OptionError
from caveat.guard import multilabel as guards
from caveat.inputs import (
    Opened,
    check_same_classes,
    check_same_shapes,
    check_same_units,
    class_names,
    largest,
    opened,
    remarks,
)
from caveat.metrics.multilabel import hamming_loss_of_each
from caveat.observations import Outputs, observe_outputs
from caveat.posteriors.network import Predictive
from caveat.records.base import stamp
from caveat.records.multilabel import MultilabelRecord
from caveat.records.record import SetSummary
from caveat.records.task import Preview
from caveat.scores import FROM_SIGMOIDS
from caveat.scores.multilabel import mean_logits

__all__ = ["THRESHOLD", "audit_multilabel"]

THRESHOLD = 0.5


@dataclass(frozen=True)
class _Judged:
    """The logits of the test set's evaluation split and of the OOD sets whole."""

    draws: Mapping[str, Tensor]
    """`(s, n, c)` of every network."""
    truth: Tensor
    held_out: tuple[Tensor, Tensor]
    """Draws and labels of the calibration split."""
    scores: Mapping[str, Mapping[str, Tensor]]
    """Per score and set."""

    @property
    def logits(self) -> Mapping[str, Tensor]:
        """`(n, c)` of the mean probabilities."""
        return {name: mean_logits(one) for name, one in self.draws.items()}


def audit_multilabel(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    test: Data,
    *,
    train: Data | None = None,
    ood: Mapping[str, Data] | None = None,
    error: float = 0.1,
    keep: float = 0.95,
    calibration_share: float = 0.5,
    seed: int = 0,
    threshold: float = THRESHOLD,
    unpack: Callable[[Any], Any] | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    folder: Path | None = None,
    made_by: str = "",
    say: Callable[[str], None] | None = None,
) -> MultilabelRecord:
    """Audit a network with independent sigmoids: each label, their ranking, calibration, label sets, and OOD inputs.

    Parameters
    ----------
    model
        A network in evaluation mode that gives a logit for each label, `(n, c)`; or several (`posteriors.Predictive`),
        whose probabilities are averaged.
    test
        Data that the model was not trained on, labels `(n, c)` of 0 and 1.
    train
        Training data, to find test samples that are among them.
    ood
        Sets of inputs unlike those of training, by name; their labels are not used.
    error
        Share of an input's labels that may be missed, in expectation.
    keep
        Share of in-distribution inputs that the previewed guard accepts.
    calibration_share
        Share of `test` on which temperatures and label sets are fitted; everything is judged on the rest.
    seed
        Of the split.
    threshold
        Probability from which on a label counts as predicted in accuracy, F1 and the like.
    folder
        Keep the outputs for the test set there, for a guard.
    unpack, device, dtype, made_by, say
        As in `audit`.

    Raises
    ------
    DataError
        If a set is empty, differs in shape, holds NaN, or test labels are missing or not 0 and 1.
    ModelError
        If the model is in training mode, gives probabilities or NaN, or does not repeat itself.
    OptionError
        If a share is not in (0, 1).
    """
    say, started = say or (lambda _: None), time.perf_counter()
    shares = {"error": error, "keep": keep, "calibration_share": calibration_share, "threshold": threshold}
    for option, value in shares.items():
        if not 0 < value < 1:
            raise OptionError(f"{option}: expected a share in (0, 1), got {value}")
    sets = _opened(test, train, ood, unpack)
    with devices.running(model, device, dtype) as place:
        model = models.adapted(model, sets["test"].first[0], name="test", several=True)
        seen: dict[str, Outputs] = {}
        for name, one in sets.items():
            say(f"observing {name}")
            target = "several" if name in ("test", "train") else "any"
            seen[name] = observe_outputs(model, one.batches, name=name, target=target)
    observed = time.perf_counter() - started
    say("judging")
    judged = _judged(seen, guards.check_labels(seen["test"], "test"), calibration_share, seed)
    names = class_names(sets["test"], judged.truth.shape[1])
    settings = shares | {"seed": seed} | place.settings
    previews, left_out = _previews(judged, names, error=error, keep=keep, seed=seed, threshold=threshold)
    record = _record(
        model, sets, seen, judged, names=names, settings=settings, previews=previews, left_out=left_out,
        seconds={"observe": observed},
    )  # fmt: skip
    record.seconds["all"] = round(time.perf_counter() - started, 3)
    if folder is None:
        return record
    about = shares | {
        "seed": seed, "names": list(names), "shape": list(sets["test"].shape), "largest": largest(sets["test"]),
        "model": made_by, "autocast": place.autocast, "columns": getattr(sets["test"].batches, "columns", None),
    }  # fmt: skip
    return record.model_copy(update={"observations": _kept(folder / "observations", model, seen["test"], about)})


def _opened(
    test: Data, train: Data | None, ood: Mapping[str, Data] | None, unpack: Callable[[Any], Any] | None
) -> dict[str, Opened]:
    sets = {"test": opened(test, "test", unpack, target="several")}
    if train is not None:
        sets["train"] = opened(train, "train", unpack, target="several")
    sets |= {name: opened(batches, name, unpack, target="any") for name, batches in named_sets("ood", ood).items()}
    check_same_shapes(sets)
    check_same_classes(sets["test"], sets.get("train"))
    check_same_units(sets["test"], sets.get("train"))
    return sets


def _kept(place: Path, model: nn.Module, seen: Outputs, about: dict[str, Any]) -> str:
    """Keep the test set's outputs and the network's weights; the name by which the record knows them."""
    own = {
        "task": "multilabel", "adapted": model.description if isinstance(model, models.Adapted) else None,
        "posterior": model.description if isinstance(model, Predictive) else None,
    }  # fmt: skip
    cache.begin(place)
    cache.keep_outputs(place, "test", seen)
    return cache.finish(model, None, place, ["test"], about | own)


def _judged(seen: Mapping[str, Outputs], labels: Tensor, part: float, seed: int) -> _Judged:
    calibrating, positions = split(len(labels), part, seed)
    values = seen["test"].values
    draws = {"test": values[:, positions]}
    draws |= {name: one.values for name, one in seen.items() if name not in ("test", "train")}
    scores: dict[str, dict[str, Tensor]] = {}
    for name, function in FROM_SIGMOIDS.items():
        found = {key: function(one) for key, one in draws.items()}
        if told := {key: one for key, one in found.items() if one is not None}:
            scores[name] = told
    return _Judged(draws, labels[positions], (values[:, calibrating], labels[calibrating]), scores)


def _record(  # noqa: PLR0913  # all parts of an audit meet here
    model: nn.Module,
    sets: Mapping[str, Opened],
    seen: Mapping[str, Outputs],
    judged: _Judged,
    *,
    names: tuple[str, ...],
    settings: Mapping[str, Any],
    previews: list[Preview],
    left_out: list[str],
    seconds: Mapping[str, float],
) -> MultilabelRecord:
    logits, truth = judged.logits, judged.truth
    held_out = mean_logits(judged.held_out[0]), judged.held_out[1]
    scaling, seed, threshold = per_label.fit(*held_out), settings["seed"], settings["threshold"]
    scaled = scaling(logits["test"])
    wrong = hamming_loss_of_each(torch.sigmoid(logits["test"]) >= threshold, truth)
    others = {name: one for name, one in seen.items() if name not in ("test", "train")}
    copies, few = overlaps(seen["test"], seen.get("train"), others, None)
    found = {
        "settings": dict(settings), "model": models.title(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "sets": [_set(name, one, seen[name]) for name, one in sets.items()],
        "split": (
            f"Of test, {len(held_out[1])} samples drawn by seed {seed} are the calibration split, on which "
            f"temperatures and label sets are fitted. All figures are of the other {len(truth)}, the evaluation split."
        ),
        "detections": [
            detection(name, key, values["test"], other)
            for name, values in judged.scores.items() for key, other in values.items() if key != "test"
        ],
        "threshold": threshold, "networks": len(seen["test"].values),
        "labels": judge.labels(
            logits["test"], scaled, truth, names=names, temperature=scaling.temperature, threshold=threshold, seed=seed
        ),
        "probabilities": judge.probabilities({"none": logits["test"], "temperature": scaled}, truth, seed=seed),
        "label_sets": judge.label_sets(held_out, logits, truth, settings["error"]),
        "selective": [
            kept(name, values["test"], wrong, summary=lambda each: each) for name, values in judged.scores.items()
        ],
        "operating": previews, "warnings": copies, "notes": [*few, *left_out], "seconds": dict(seconds),
    }  # fmt: skip
    record = MultilabelRecord.model_validate(stamp() | found | judge.overall(logits["test"], truth, threshold))
    record.warnings.extend([*_warnings(record, torch.cat([truth, held_out[1]])), *remarks(sets)])
    record.notes.extend(_notes(record, held_out[1]))
    return record


def _set(name: str, one: Opened, seen: Outputs) -> SetSummary:
    role = name if name in ("test", "train") else "ood"
    return SetSummary.model_validate({
        "name": name, "role": role, "source": one.source, "count": len(seen), "shape": list(one.shape),
        "generated": one.generated, "content": content(seen, labelled=role != "ood"),
    })  # fmt: skip


def _previews(
    judged: _Judged, names: tuple[str, ...], *, error: float, keep: float, seed: int, threshold: float
) -> tuple[list[Preview], list[str]]:
    """What the guard with the leading score would do; or why there is none."""
    try:
        made = guards.decide(*judged.held_out, keep=keep, error=error, seed=seed, names=names)
    except OptionError as refusal:
        return [], [f"Guard: {refusal}"]
    scores, test, truth = judged.scores[made.score], judged.draws["test"], judged.truth
    accepted = {key: values <= made.promise.threshold for key, values in scores.items()}
    wrong = hamming_loss_of_each(torch.sigmoid(mean_logits(test)) >= threshold, truth)
    own = accepted["test"]
    there = own & truth.any(dim=1)
    sets = made.control(made.probs(test))
    preview = Preview(
        score=made.score, keep=keep, threshold=made.promise.threshold,
        accepted={key: share(hits) for key, hits in accepted.items()},
        error=float(wrong[own].mean()) if own.any() else 0.0, error_of_all=float(wrong.mean()),
        coverage=judge.found_share(sets[there], truth[there]) if there.any() else None,
    )  # fmt: skip
    return [preview], []


def _warnings(record: MultilabelRecord, labels: Tensor) -> list[str]:
    """Signs that labels exclude each other, or are not those of the outputs."""
    found: list[str] = []
    if bool((labels.sum(dim=1) == 1).all()):
        found.append(
            "Every test sample has exactly one label: do the labels exclude each other? Then this is a classifier, "
            "whose audit (of labels.argmax(1)) says more; its outputs belong into a softmax, not into sigmoids."
        )
    behind = [row.name for row in record.labels if row.auroc is not None and row.auroc.highest < 0.5]
    if behind:
        found.append(
            f"Samples that have the label rank below those that have not, for {len(behind)} of {len(record.labels)} "
            f"labels ({', '.join(behind[:5])}): are the columns of the labels in the order of the network's outputs?"
        )
    return found


def _notes(record: MultilabelRecord, calibrating: Tensor) -> list[str]:
    notes: list[str] = []
    count = record.label_sets.judged_on if record.label_sets else 0
    if count < 1000:
        notes.append(f"Only {count} samples with labels were judged: read the intervals, not the values.")
    one_sided = [row.name for row in record.labels if row.auroc is None]
    if one_sided:
        notes.append(
            f"No evaluation sample has, or all have, {len(one_sided)} of the labels ({', '.join(one_sided[:5])}): "
            "nothing can be said of their ranking, and the mean average precision is without them."
        )
    still = int((~calibrating.any(dim=0) | calibrating.all(dim=0)).sum())
    if still:
        notes.append(f"Of {still} labels the calibration split has one side only: their temperature stays 1.")
    if record.label_sets is None:
        notes.append("Label sets: no calibration sample has a label, so that nothing can be promised of those missed.")
    elif record.label_sets.threshold == 0:
        notes.append(
            f"Label sets: {record.label_sets.fitted_on} calibration samples with labels are too few to promise "
            "anything but all labels; raise calibration_share or the error."
        )
    elif record.label_sets.threshold > record.threshold:
        notes.append(
            f"Label sets: a share of {record.label_sets.error:.0%} may be missed, which allows a threshold of "
            f"{record.label_sets.threshold:.4g}: the network misses less at {record.threshold:g}; ask for a "
            "smaller error."
        )
    if not any(item.role == "ood" for item in record.sets):
        notes.append("No OOD set was given: nothing is known of how the network answers what it has never seen.")
    return notes
