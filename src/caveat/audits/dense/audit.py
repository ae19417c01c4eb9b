"""Auditing dense prediction `(n, c, h, w)`, pixel by pixel and streamed: no array of all pixels is ever kept.

Two passes over the data: the first finds where scores lie (edges of their histograms) and a temperature on some
pixels, the second counts. What is kept is a thousand numbers per score, whatever the number of pictures.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from caveat import calibration, devices, models
from caveat import scores as tables
from caveat.audits import judge
from caveat.audits.dense.counts import Counts, Reservoir, Sums
from caveat.audits.dense.pictures import FROM_LOGITS, Answer, Plan, answers
from caveat.audits.dense.scenes import Views
from caveat.errors import DataError, known_name
from caveat.evaluation import check
from caveat.metrics import ranking
from caveat.metrics.tally import quantile_edges
from caveat.records import record
from caveat.records.base import stamp
from caveat.scoring import catalog
from caveat.types import Batches, Drawing

__all__ = ["audit_dense", "confusion_iou"]

PIXELS = 20_000
"""Pixels (to twice as many) from which edges and temperature are found."""
CELLS = 1024
SPLIT = ("predictive_entropy", "expected_entropy", "mutual_information")
"""Total, aleatoric, epistemic."""
AGREEMENT = "variation_ratio"


def audit_dense(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    test: Batches,
    *,
    ood: Mapping[str, Sequence[int]] | None = None,
    void: int | None = None,
    scores: Sequence[str] | None = None,
    scenes: int = 4,
    replicas: int = 200,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
) -> record.Record:
    """Audit a segmentation network: accuracy, calibration, mistakes and OOD objects, over all pixels.

    Parameters
    ----------
    model
        In evaluation mode, pictures to logits `(n, c, h, w)`; or a posterior as one network
        (`posteriors.Predictive`), whose draws are scored too.
    test
        Batches of pictures and label maps `(n, h, w)`; gone through twice.
    ood
        Labels (at or above c, say) of objects the network was not trained on, by the name of their kind; those of
        `data.segmentation`'s sets by default.
    void
        Label of pixels that count for nothing; likewise.
    scores
        Names of scores that need nothing but logits or draws; all of these by default.
    scenes
        Pictures shown with their maps: those with most OOD pixels, then the least sure.
    device, dtype
        Where the network runs and in which precision, as of `audits.audit`.

    Raises
    ------
    DataError
        If the set is empty, or label maps and logits differ in size.
    ModelError
        If the model is in training mode or gives NaN.
    OptionError
        If a score is not one of those.
    """
    check(model)
    with devices.running(model, device, dtype) as place:
        plan = _plan(model, test, ood, void, scores)
        say = say or (lambda _: None)
        started = time.perf_counter()
        say("first pass: where scores lie")
        sample, fitted, edges = _first_pass(plan)
        counts = {name: Counts(edges[name], tuple(plan.kinds)) for name in plan.names}
        sums = {"none": Sums(), "temperature": Sums()}
        leading = _leading(plan)
        views, confusion = Views(scenes), torch.zeros(sample.shape[1], sample.shape[1]).double()
        images, drawn, shape = 0, 0, [0]
        say("second pass: counting")
        for answer in answers(plan):
            images, shape = images + 1, list(answer.picture.shape)
            drawn = 0 if answer.draws is None else len(answer.draws)
            _count(plan, answer, fitted, counts, sums, confusion, views, leading)
        calibrations = _calibrations(
            sums, {"none": {}, "temperature": {"temperature": float(fitted.temperature)}}, replicas, seed
        )
        classes = list(getattr(test, "classes", None) or map(str, range(len(confusion))))
        edges_of_leading = counts[leading].edges
        shown = views.scenes(leading, float(edges_of_leading[0]), float(edges_of_leading[-1]), [*classes, *plan.kinds])
        kept = sum(one.nbytes() for one in (*counts.values(), *sums.values()))
        return record.Record(
            **stamp(),
            settings={
                "scores": list(plan.names), "void": plan.void, "scenes": scenes, "replicas": replicas, "seed": seed,
                **place.settings,
            },
            model=models.title(model),
            parameters=sum(p.numel() for p in model.parameters()),
            head="",
            classes=classes,
            sets=_sets(plan, counts[leading], images, shape, calibrations[0].summary.mean_confidence),
            split=(
                f"{sums['none'].count} known pixels of {images} pictures, streamed twice; the temperature was fitted "
                f"on {len(sample)} of them, so its figures are slightly optimistic."
            ),
            calibrations=calibrations,
            scores=[_score(name, counts[name]) for name in plan.names],
            detections=[
                judge.detection_of(name, kind, tally)
                for name in plan.names for kind, tally in counts[name].present().items() if kind != "wrong"
            ],
            selective=[
                judge.misclassification_of(name, counts[name].tally("wrong"))
                for name in plan.names if "wrong" in counts[name].present()
            ],
            sweeps=[counts[name].sweep(name) for name in plan.names],
            pictures=[],
            draws=_draws(counts, drawn, calibrations[0].summary, list(plan.kinds)),
            scenes=shown,
            notes=_notes(confusion, kept),
            seconds={"all": time.perf_counter() - started},
        )  # fmt: skip


def _count(
    plan: Plan,
    answer: Answer,
    fitted: calibration.temperature.Temperature,
    counts: Mapping[str, Counts],
    sums: Mapping[str, Sums],
    confusion: Tensor,
    views: Views,
    leading: str,
) -> None:
    """Add the pixels of one picture to all that is counted."""
    group, values = plan.group(answer), plan.scored(answer)
    known = (group == 0) | (group == 1)
    logits, labels = answer.logits[known], answer.labels[known]
    if bool(known.any()):
        sums["none"].add(logits, labels)
        sums["temperature"].add(fitted(logits), labels)
        confusion += _confusion(logits.argmax(1), labels, len(confusion))
    for name in plan.names:
        counts[name].add(values[name], group)
    views.offer(answer.picture, answer.logits, answer.labels, group, values[leading])


def _calibrations(
    sums: Mapping[str, Sums], parameters: Mapping[str, Mapping[str, float]], replicas: int, seed: int
) -> list[record.Calibration]:
    rows: list[record.Calibration] = []
    for name, values in parameters.items():
        summary, diagram = sums[name].summary(replicas, seed)
        rows.append(record.Calibration(name=name, parameters=dict(values), summary=summary, reliability=diagram))
    return rows


def confusion_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class from counts `(labels, predictions)`; NaN for classes that never occur."""
    both = confusion.diagonal()
    return both / (confusion.sum(0) + confusion.sum(1) - both)


def _plan(
    model: nn.Module,
    test: Batches,
    ood: Mapping[str, Sequence[int]] | None,
    void: int | None,
    scores: Sequence[str] | None,
) -> Plan:
    allowed = FROM_LOGITS | tables.FROM_DRAWS if isinstance(model, Drawing) else FROM_LOGITS
    names = tuple(known_name("scores", name, allowed) for name in (scores or allowed))
    given: Mapping[str, Sequence[int]] = getattr(test, "ood", {}) if ood is None else ood
    kinds = {name: torch.tensor(list(labels)) for name, labels in given.items()}
    return Plan(model, test, names, getattr(test, "void", None) if void is None else void, kinds)


def _leading(plan: Plan) -> str:
    """The score whose maps are shown: uncertainty about the network if there are draws, else plain uncertainty."""
    wanted = ("mutual_information", "predictive_entropy", "entropy", "msp")
    return next((name for name in wanted if name in plan.names), plan.names[0])


def _first_pass(plan: Plan) -> tuple[Tensor, calibration.temperature.Temperature, dict[str, Tensor]]:
    """Logits of some known pixels, the temperature fitted on them, and edges of each score's bins from all groups."""
    chosen, spread = Reservoir(PIXELS), Reservoir(PIXELS)
    for answer in answers(plan):
        group = plan.group(answer)
        known = (group == 0) | (group == 1)
        chosen.add(answer.logits[known], answer.labels[known])
        values = plan.scored(answer)
        spread.add(torch.stack([values[name][group >= 0].float() for name in plan.names], dim=1))
    if not chosen.rows:
        raise DataError("test: expected at least one batch of pictures, got an empty set")
    logits, labels = chosen.columns()
    if not len(logits):
        raise DataError("test: expected pixels with a known label, got none")
    (values,) = spread.columns()
    edges = {name: quantile_edges(values[:, i], bins=CELLS) for i, name in enumerate(plan.names)}
    return logits, calibration.temperature.fit(logits, labels), edges


def _sets(plan: Plan, counts: Counts, images: int, shape: list[int], confidence: float) -> list[record.SetSummary]:
    """The pictures, and each OOD kind that occurs in them."""
    sets = [record.SetSummary(name="test", role="test", source=str(getattr(plan.test, "name", "test")), count=images,
                              shape=shape, mean_confidence=confidence)]  # fmt: skip
    present = counts.present()
    return sets + [
        record.SetSummary(name=kind, role="ood", source=f"pixels labelled {labels.tolist()}",
                          count=int(present[kind].positive.sum()), shape=shape)
        for kind, labels in plan.kinds.items() if kind in present
    ]  # fmt: skip


def _score(name: str, counts: Counts) -> record.Score:
    summary, source = catalog.describe(name)
    family = "draws" if name in tables.FROM_DRAWS else "logits"
    return record.Score.model_validate(
        {"name": name, "family": family, "summary": summary, "source": source, "seconds_fit": 0.0,
         "seconds_score": 0.0, **counts.shape()}
    )  # fmt: skip


def _notes(confusion: Tensor, kept: int) -> list[str]:
    iou = confusion_iou(confusion)
    return [
        "Neighbouring pixels are alike. The intervals of accuracy, NLL and Brier score are over pictures; the others "
        "count pixels as independent and are too narrow.",
        f"Mean intersection over union of the known classes: {float(iou.nanmean()):.3f}.",
        f"What was kept of all pixels: {kept / 1e6:.2f} MB.",
    ]


def _draws(
    counts: Mapping[str, Counts], count: int, summary: record.Performance, kinds: Sequence[str]
) -> record.Draws | None:
    """What the draws say of right, wrong and OOD pixels; None if not all of their scores were asked for."""
    if not {*SPLIT, AGREEMENT} <= set(counts):
        return None
    sides = ("correct", "wrong", *kinds)
    sets: list[record.DrawsOf] = []
    for side in sides:
        means = [counts[name].mean(side) for name in (*SPLIT, AGREEMENT)]
        if all(mean is not None for mean in means):
            total, aleatoric, epistemic, ratio = (mean or 0.0 for mean in means)
            sets.append(
                record.DrawsOf(set=side, total=total, aleatoric=aleatoric, epistemic=epistemic, agreement=1 - ratio)
            )
    found = {kind: float(ranking.auroc(t)) for kind, t in counts[SPLIT[0]].present().items() if kind != "wrong"}
    gain = record.DrawsGain(
        draws=count, accuracy=summary.accuracy.value, nll=summary.nll.value, ece=summary.ece.value, auroc=found
    )
    return record.Draws(count=count, sets=sets, gain=[gain])


def _confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts of known pixels by label and prediction."""
    return (labels * classes + predicted).bincount(minlength=classes**2).reshape(classes, classes).double()
