"""The numbers that the page's script needs, by position, thinned until the page is small."""

import json
from bisect import bisect
from itertools import pairwise
from typing import Any

from caveat.records.record import Curve, Detection, Estimate, Operating, Picture, Record, Sweep
from caveat.report.figures import FIGURES
from caveat.report.picks import Picks

__all__ = ["embed", "payload", "pictures", "thin"]

NUMBERS = 160_000
"""Numbers in curves and sweeps, all told; about seven bytes each."""
FEWEST, MOST = 24, 200
"""Points per curve."""
PICTURE_BYTES = 800_000
PARTS = (["correct", "test"], ["wrong", "train"])
"""The in-distribution set's parts, and the role whose colour each wears."""
ROUNDING = 1e-5
"""The record rounds to six digits, so that shares which add up to 0.95 may come to a little less."""
KEPT = (0.90, 0.95, 0.99)
"""Shares of in-distribution data accepted whose thresholds are never thinned away: the slider's buttons go there."""

Json = dict[str, Any]


def payload(found: Picks) -> Json:
    """Everything that changes under the reader's hand. Positions stand for names, so that no name is a key."""
    record, ood = found.record, found.ood
    scores = [item.name for item in record.scores]
    limit = _points(record)
    selective = {item.score: item for item in record.selective}
    sweeps = {item.score: item for item in record.sweeps}
    groups = ["correct", "wrong", *(item.name for item in ood)]
    guards = {item.score: item for item in record.operating}
    test = next((item.name for item in record.sets if item.role == "test"), "")
    ranges = _ranges(found)
    return {
        "scores": scores,
        "ood": [{"name": item.name, "generated": item.generated} for item in ood],
        "start": {"score": scores.index(found.leading) if found.leading in scores else 0, "set": _hardest(found)},
        "about": [{"summary": item.summary, "family": item.family, "source": item.source} for item in record.scores],
        "reliability": [item.reliability.model_dump() for item in record.calibrations],
        "histogram": [[_short(item.histogram.get(group, [])) for group in groups] for item in record.scores],
        "edges": [_short(item.edges) for item in record.scores],
        "quantiles": [[item.quantiles.get(name) for name in ranges] for item in record.scores],
        "ranges": ranges,
        "roles": [*PARTS, *([item.name, item.role] for item in record.sets)],
        "detections": [[_detection(found.detection(s, u.name), limit) for u in ood] for s in scores],
        "selective": [_curve(selective[s].risk_coverage, limit) if s in selective else None for s in scores],
        "sweeps": [
            _sweep(with_guard(sweeps.get(s), guards.get(s), test), [u.name for u in ood], limit, guards.get(s))
            for s in scores
        ],
        "uncertainty": _uncertainty(record),
        "gain": _gain(record),
        "attacked": [[radius.model_dump() for radius in item.radii] for item in record.attacked],
        "figures": {name: make() for name, make in FIGURES.items()},
    }


def _uncertainty(record: Record) -> list[Json]:
    """Where uncertainty comes from, per set; empty for a single network."""
    return [
        {"set": item.set, "part": part, "value": value}
        for item in (record.draws.sets if record.draws else [])
        for part, value in (("aleatoric", item.aleatoric), ("epistemic", item.epistemic))
    ]


def _gain(record: Record) -> list[Json]:
    last = record.draws.gain[-1].draws if record.draws else 0
    return [
        {"draws": item.draws, "value": value, "set": name, "label": name if item.draws == last else ""}
        for item in (record.draws.gain if record.draws else [])
        for name, value in item.auroc.items()
    ]


def _ranges(found: Picks) -> list[str]:
    """Names of the sets that have quantiles: the in-distribution ones and their parts first, then the record's
    order."""
    record = found.record
    present = [name for item in record.scores for name in item.quantiles]
    others = [item.name for item in record.sets if item.role != "ood"]
    order = [*others, *(name for name, _ in PARTS), *(item.name for item in found.ood), *present]
    return list(dict.fromkeys(name for name in order if name in present))


def _points(record: Record) -> int:
    curves = 4 * len(record.detections) + 2 * len(record.selective)
    sweeps = sum(3 + len(item.accepted_ood) for item in record.sweeps)
    return max(FEWEST, min(MOST, NUMBERS // max(1, curves + sweeps)))


def _hardest(found: Picks) -> int:
    """Position of the OOD set that is accepted most: what the reader should see first."""
    worst = found.accepted[-1].set.name if found.accepted else None
    return next((at for at, item in enumerate(found.ood) if item.name == worst), 0)


def with_guard(sweep: Sweep | None, guard: Operating | None, test: str) -> Sweep | None:
    """The sweep with the guard's own threshold among its thresholds, so that the slider can stand exactly there."""
    if sweep is None or guard is None or test not in guard.accepted or guard.threshold in sweep.thresholds:
        return sweep
    if any(name not in guard.accepted for name in sweep.accepted_ood):
        return sweep
    at = bisect(sweep.thresholds, guard.threshold)

    def put(column: list[float], value: float) -> list[float]:
        return [*column[:at], value, *column[at:]]

    share = guard.accepted[test]
    return sweep.model_copy(
        update={
            "thresholds": put(sweep.thresholds, guard.threshold),
            "accepted_correct": put(sweep.accepted_correct, share * (1 - guard.error)),
            "accepted_wrong": put(sweep.accepted_wrong, share * guard.error),
            "accepted_ood": {name: put(column, guard.accepted[name]) for name, column in sweep.accepted_ood.items()},
        }
    )


def _estimate(value: Estimate) -> list[float | None]:
    return [value.value, value.low, value.high]


def _detection(found: Detection | None, limit: int) -> Json | None:
    if found is None:
        return None
    return {
        "auroc": _estimate(found.auroc),
        "aupr_in": _estimate(found.aupr_in),
        "aupr_out": _estimate(found.aupr_out),
        "fpr": _estimate(found.fpr_at_95_tpr),
        "base_rate": found.base_rate,
        "detection_error": found.detection_error,
        "roc": _curve(found.roc, limit),
        "pr": _curve(found.precision_recall, limit),
    }


def _curve(curve: Curve, limit: int) -> Json:
    kept = thin([curve.x, curve.y], limit)
    return {"x": _short([curve.x[i] for i in kept]), "y": _short([curve.y[i] for i in kept])}


def _sweep(sweep: Sweep | None, ood: list[str], limit: int, guard: Operating | None) -> Json | None:
    if sweep is None or not sweep.thresholds:
        return None
    share = [right + wrong for right, wrong in zip(sweep.accepted_correct, sweep.accepted_wrong, strict=True)]
    wanted = [next((i for i, s in enumerate(share) if s >= keep - ROUNDING), len(share) - 1) for keep in KEPT]
    guarded = guard is not None and guard.threshold in sweep.thresholds
    if guard is not None and guarded:
        wanted[1] = sweep.thresholds.index(guard.threshold)
    passed = [sweep.accepted_ood.get(name) for name in ood]
    kept = thin([share, *(column for column in passed if column)], limit, keep=wanted)
    columns = [sweep.accepted_correct, sweep.accepted_wrong]
    return {
        "thresholds": [sweep.thresholds[i] for i in kept],
        "right": [columns[0][i] for i in kept],
        "wrong": [columns[1][i] for i in kept],
        "accepted_ood": [[column[i] for i in kept] if column else None for column in passed],
        "marks": [kept.index(i) for i in wanted],
        "guard": guarded,
    }


def thin(columns: list[list[float]], limit: int, *, keep: list[int] | None = None) -> list[int]:
    """Positions of at most about `limit` points, evenly spaced along the path that the columns draw.

    The first and last points and those of `keep` always stay.

    >>> thin([[0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.0]], 3)
    [0, 2, 3]
    """
    size = len(columns[0])
    if size <= limit:
        return list(range(size))
    length = [0.0]
    for before, after in pairwise(range(size)):
        length.append(length[-1] + sum(abs(column[after] - column[before]) for column in columns))
    step = max(length[-1] / (limit - 1), 1e-9)
    chosen, reached = {0, size - 1, *(keep or [])}, 0.0
    for i in range(size):
        if length[i] >= reached - 1e-12:
            chosen.add(i)
            reached = length[i] + step
    return sorted(chosen)


def _short(values: list[float]) -> list[float]:
    """Four significant digits: finer than any chart."""
    return [float(f"{value:.4g}") for value in values]


def pictures(record: Record) -> list[Picture]:
    """The pictures that fit into the page, the first of every kind and set before the second of any."""
    turn: dict[tuple[str, str, str], int] = {}
    queue: list[tuple[int, int]] = []
    for position, item in enumerate(record.pictures):
        group = (item.kind, item.set, item.score)
        turn[group] = turn.get(group, -1) + 1
        queue.append((turn[group], position))
    chosen, used = list[int](), 0
    for _, position in sorted(queue):
        used += len(record.pictures[position].png)
        if used > PICTURE_BYTES:
            break
        chosen.append(position)
    return [record.pictures[i] for i in sorted(chosen)]


def embed(value: Json) -> str:
    """JSON that may stand inside a `<script>`: nothing in it can end the element or a JavaScript line.

    >>> embed({"a": "</script>"})
    '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
