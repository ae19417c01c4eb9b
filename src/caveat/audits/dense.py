"""Auditing dense prediction `(n, c, h, w)`, pixel by pixel and streamed: no array of all pixels is ever kept.

Two passes over the data: the first finds where scores lie (edges of their histograms) and a temperature on some
pixels, the second counts. What is kept is a few thousand numbers per score, whatever the number of pictures.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from caveat import __version__, calibration
from caveat import scores as tables
from caveat.audits import catalog, judge, record
from caveat.audits.pixels import Counts, Sums
from caveat.errors import DataError
from caveat.metrics.tally import quantile_edges
from caveat.observations import check_eval, glance
from caveat.types import Batches

__all__ = ["audit_dense"]

PIXELS = 200_000
"""Pixels at most from which edges and temperature are found."""
CELLS = 2048


def audit_dense(
    model: nn.Module,
    test: Batches,
    *,
    unknown: Mapping[str, Sequence[int]] | None = None,
    void: int | None = None,
    scores: Sequence[str] | None = None,
    replicas: int = 200,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> record.Record:
    """Audit a segmentation network: accuracy, calibration, mistakes and unknown objects, over all pixels.

    Parameters
    ----------
    model
        In evaluation mode, pictures to logits `(n, c, h, w)`.
    test
        Batches of pictures and label maps `(n, h, w)`; gone through twice.
    unknown
        Labels (at or above c, say) of objects the network was not trained on, by the name of their kind.
    void
        Label of pixels that count for nothing.
    scores
        Names of scores that need nothing but logits; all of these by default.

    Raises
    ------
    DataError
        If the set is empty, or label maps and logits differ in size.
    ModelError
        If the model is in training mode or gives NaN.
    OptionError
        If a score is not one of those.
    """
    check_eval(model)
    allowed = tables.FROM_LOGITS | tables.FROM_RAW_LOGITS
    names = [catalog.known_name("scores", name, allowed) for name in (scores or allowed)]
    kinds = {name: torch.tensor(list(labels)) for name, labels in (unknown or {}).items()}
    say = say or (lambda _: None)
    started = time.perf_counter()
    say("first pass: where scores lie")
    sample, sample_labels, shape = _sample(model, test, void, kinds)
    fitted = calibration.temperature.fit(sample, sample_labels)
    counts = {name: Counts(quantile_edges(allowed[name](sample), bins=CELLS)) for name in names}
    sums = {"none": Sums(), "temperature": Sums()}
    say("second pass: counting")
    images = 0
    for logits, labels in _pixels(model, test):
        images += 1
        keep = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
        foreign = {name: torch.isin(labels, found) & keep for name, found in kinds.items()}
        known = keep & ~torch.stack(list(foreign.values())).any(dim=0) if foreign else keep
        right = logits.argmax(dim=1) == labels
        if known.any():
            sums["none"].add(logits[known], labels[known])
            sums["temperature"].add(fitted(logits[known]), labels[known])
        for name in names:
            values = allowed[name](logits)
            counts[name].add(values[known], ~right[known], "wrong")
            for kind, mask in foreign.items():
                counts[name].add(values[known | mask], mask[known | mask], kind)
    calibrations: list[record.Calibration] = []
    for name, parameters in (("none", {}), ("temperature", {"temperature": float(fitted.temperature)})):
        summary, diagram = sums[name].summary(replicas, seed)
        calibrations.append(record.Calibration(name=name, parameters=parameters, summary=summary, reliability=diagram))
    sets = [record.SetSummary(name="test", role="known", source=str(getattr(test, "name", "test")), count=images,
                              shape=shape, mean_confidence=calibrations[0].summary.mean_confidence)]  # fmt: skip
    present = counts[names[0]].present()
    sets += [
        record.SetSummary(name=kind, role="unknown", source=f"pixels labelled {kinds[kind].tolist()}",
                          count=int(present[kind].positive.sum()), shape=shape)
        for kind in kinds if kind in present
    ]  # fmt: skip
    pixels = sums["none"].count
    return record.Record(
        caveat_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={"scores": names, "void": void, "replicas": replicas, "seed": seed},
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        head="",
        classes=[str(k) for k in range(sample.shape[1])],
        sets=sets,
        split=(
            f"{pixels} known pixels of {images} pictures, streamed twice; the temperature was fitted on {len(sample)} "
            "of them, so its figures are slightly optimistic."
        ),
        calibrations=calibrations,
        scores=[
            record.Score.model_validate(
                {"name": name, "family": "logits", "summary": catalog.describe(name)[0],
                 "source": catalog.describe(name)[1], "seconds_fit": 0.0, "seconds_score": 0.0, **counts[name].shape()}
            )
            for name in names
        ],
        detections=[
            judge.detection_of(name, kind, tally, replicas=replicas, seed=seed)
            for name in names for kind, tally in counts[name].present().items() if kind != "wrong"
        ],
        selective=[
            judge.misclassification_of(name, counts[name].tallies["wrong"], replicas=replicas, seed=seed)
            for name in names if "wrong" in counts[name].present()
        ],
        sweeps=[counts[name].sweep(name) for name in names],
        pictures=[],
        notes=["Neighbouring pixels are alike: intervals, which count them as independent, are too narrow."],
        seconds={"all": time.perf_counter() - started},
    )  # fmt: skip


def _sample(
    model: nn.Module, test: Batches, void: int | None, kinds: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, list[int]]:
    """Logits and labels of at most `PIXELS` known pixels, evenly from all pictures, and the shape of a picture."""
    first = next(iter(test), None)
    if first is None:
        raise DataError("test: expected at least one batch of pictures, got an empty set")
    parts: list[tuple[Tensor, Tensor]] = []
    for logits, labels in _pixels(model, test):
        keep = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
        for found in kinds.values():
            keep &= ~torch.isin(labels, found)
        rows = keep.nonzero().flatten()
        step = max(1, len(rows) // 500)  # some of every picture; thinned again below
        parts.append((logits[rows[::step]], labels[rows[::step]]))
    logits, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    if not len(logits):
        raise DataError("test: expected pixels with a known label, got none")
    rows = torch.linspace(0, len(labels) - 1, min(PIXELS, len(labels))).long()
    return logits[rows], labels[rows], list(first[0].shape[1:])


def _pixels(model: nn.Module, batches: Batches) -> Generator[tuple[Tensor, Tensor]]:
    """Logits `(p, c)` and labels `(p,)` of one picture after the other."""
    anchor = next(model.parameters(), torch.empty(0))
    for number, (inputs, labels) in enumerate(batches):
        logits, _, _ = glance(model, inputs.to(anchor.device, anchor.dtype), None, {}, f"batch {number} of test")
        if logits.ndim != 4 or labels.shape != (len(logits), *logits.shape[2:]):
            raise DataError(
                f"test: expected label maps (n, h, w) for logits (n, c, h, w), got {tuple(labels.shape)} for "
                f"{tuple(logits.shape)}"
            )
        for one, truth in zip(logits.cpu(), labels.cpu(), strict=True):
            yield one.flatten(1).T, truth.flatten().long()
