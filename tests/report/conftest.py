"""A made-up record whose numbers hang together: curves, areas and sweeps come from the same simulated scores."""

import base64
import io
from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from caveat.records.classes import Confused, Confusion, PerClass
from caveat.records.record import (
    Calibration,
    Check,
    Choice,
    Conformal,
    Curve,
    Detection,
    Estimate,
    Operating,
    Performance,
    Picture,
    Record,
    Reliability,
    Score,
    Selective,
    SetSummary,
    Sweep,
)

Array = NDArray[Any]
QUANTILES = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
SCORES = [
    ("knn", "features", 2.9),
    ("mahalanobis", "features", 2.6),
    ("vim", "features", 2.4),
    ("react", "head", 2.0),
    ("energy", "logits", 1.9),
    ("max_logit", "logits", 1.9),
    ("entropy", "logits", 1.6),
    ("msp", "logits", 1.5),
    ("margin", "logits", 1.1),
]
SETS = [
    ("notmnist", "notmnist_small:train", 1.3),
    ("fashion-mnist", "fashion-mnist:test", 1.0),
    ("kmnist", "kmnist:test", 0.55),
    ("omniglot", "omniglot+invert+28x28", 0.9),
    ("noise", "noise:uniform", 3.0),
]
RIGHT, WRONG, OOD = 1460, 40, 1200
CALIBRATIONS = [
    ("vector", 0.0061, 0.003, {}),
    ("matrix", 0.0139, -0.012, {}),
    ("dirichlet", 0.0082, -0.004, {}),
    ("isotonic", 0.0104, 0.009, {}),
    ("histogram", 0.0127, -0.011, {"bins": 15.0}),
]


def estimate(value: float, half: float = 0.004) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def curves(known: Array, ood: Array) -> dict[str, Any]:
    scores = np.concatenate([known, ood])
    is_unknown = np.concatenate([np.zeros(len(known)), np.ones(len(ood))])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_unknown[order])
    rejected = np.concatenate([[0], np.cumsum(1 - is_unknown[order]) / len(known)])
    caught = np.concatenate([[0], hits / len(ood)])
    precision = np.concatenate([[1], hits / np.arange(1, len(order) + 1)])
    keep = np.unique(np.linspace(0, len(order), 300).astype(int))
    inside = np.argsort(scores, kind="stable")
    found = np.cumsum(1 - is_unknown[inside]) / np.arange(1, len(order) + 1)
    return {
        "auroc": estimate(float(np.trapezoid(caught, rejected))),
        "aupr_out": estimate(float(np.sum(np.diff(caught) * precision[1:]))),
        "aupr_in": estimate(float(np.mean(found[is_unknown[inside] == 0]))),
        "fpr": float(np.mean(ood <= np.quantile(known, 0.95))),
        "detection_error": float(np.min((rejected + 1 - caught) / 2)),
        "roc": Curve(x=rejected[keep].tolist(), y=caught[keep].tolist()),
        "pr": Curve(x=caught[keep].tolist(), y=precision[keep].tolist()),
    }


def summary(accuracy: float, confidence: float, ece: float) -> Performance:
    return Performance(
        accuracy=estimate(accuracy),
        nll=Estimate(value=0.09 + ece, low=0.08 + ece, high=0.1 + ece),
        brier=Estimate(value=0.041 + ece / 10, low=0.039, high=0.049),
        ece=estimate(ece, 0.002),
        ece_equal_mass=ece * 0.9,
        ece_classwise=ece * 0.4,
        mce=min(1.0, ece * 6),
        mean_confidence=confidence,
        brier_calibration=ece / 10,
        brier_refinement=0.859,
        brier_uncertainty=0.9,
    )


def calibration(name: str, ece: float, gap: float, parameters: dict[str, float]) -> Calibration:
    confidence = np.linspace(0.25, 0.985, 12)
    share = np.exp(confidence * 5)
    wave = 0.02 * np.sin(np.arange(12) * 2.1)
    return Calibration(
        name=name,
        parameters=parameters,
        summary=summary(0.9733, 0.9733 + gap, ece),
        reliability=Reliability(
            confidence=confidence.tolist(),
            accuracy=np.clip(confidence - 4 * gap * (1 - confidence) / 0.4 + wave, 0, 1).tolist(),
            share=(share / share.sum()).tolist(),
        ),
    )


def picture(kind: str, name: str, score: str, index: int, rng: np.random.Generator, classes: list[str]) -> Picture:
    pixels = rng.integers(0, 60, (28, 28), dtype=np.uint8)
    row, column = rng.integers(3, 12, 2)
    pixels[row : row + 14, column + 4 : column + 8] = 230
    pixels[row + 5 : row + 8, column : column + 13] = 200
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    said = int(rng.integers(len(classes)))
    true = {"confident error": classes[(said + 3) % len(classes)], "uncertain correct": classes[said]}.get(kind)
    return Picture(
        kind=kind,  # pyright: ignore[reportArgumentType]  (pydantic checks it)
        score=score,
        value=float(rng.normal()),
        set=name,
        index=index,
        predicted=classes[said],
        label=true,
        confidence=float(rng.uniform(0.4, 1)),
        png=base64.b64encode(stream.getvalue()).decode(),
    )


def score_parts(name: str, family: str, known: tuple[Array, Array], ood: dict[str, Array]) -> dict[str, Any]:
    right, wrong = known
    both = np.concatenate(known)
    edges = np.linspace(min(both.min(), -3), max(float(np.max(list(ood.values()) or [both.max()])), 5), 41)
    groups = {"correct": right, "wrong": wrong, **ood}
    sets = {"mnist": both, **ood}
    score = Score(
        name=name,
        family=family,  # pyright: ignore[reportArgumentType]  (pydantic checks it)
        summary=f"What {name} measures, in one sentence of its docstring.",
        source="A. Author and B. Author, A paper, 2021, equation 3.",
        seconds_fit=0.41,
        seconds_score=0.034,
        quantiles={k: np.quantile(v, QUANTILES).tolist() for k, v in sets.items()},
        edges=edges.tolist(),
        histogram={k: (np.histogram(v, edges)[0] / len(v)).tolist() for k, v in groups.items()},
    )
    cuts = np.quantile(both, np.linspace(0, 1, 200))
    sweep = Sweep(
        score=name,
        thresholds=cuts.tolist(),
        accepted_correct=[float(np.sum(right <= cut) / len(both)) for cut in cuts],
        accepted_wrong=[float(np.sum(wrong <= cut) / len(both)) for cut in cuts],
        accepted_ood={k: [float(np.mean(v <= cut)) for cut in cuts] for k, v in ood.items()},
    )
    order = np.argsort(both, kind="stable")
    is_wrong = np.concatenate([np.zeros(len(right)), np.ones(len(wrong))])[order]
    risk = np.cumsum(is_wrong) / np.arange(1, len(both) + 1)
    keep = np.unique(np.linspace(0, len(both) - 1, 200).astype(int))
    selective = Selective(
        score=name,
        auroc=estimate(float(np.mean(wrong[:, None] > right[None, :])), 0.02),
        aurc=estimate(float(risk.mean()), 0.001),
        e_aurc=float(risk.mean()) * 0.9,
        risk_coverage=Curve(x=((keep + 1) / len(both)).tolist(), y=risk[keep].tolist()),
    )
    return {"score": score, "sweep": sweep, "selective": selective}


def sizes(mean: float, classes: int) -> list[float]:
    """Shares of sets of 0, 1, ... classes with this mean: one, and a binomial's share of the others."""
    others = classes - 1
    chance = (mean - 1) / others
    return [0.0] + [comb(others, k) * chance**k * (1 - chance) ** (others - k) for k in range(classes)]


def conformal(name: str, error: float, coverage: float, means: dict[str, float], classes: int = 10) -> Conformal:
    return Conformal(
        name=name,
        error=error,
        coverage=estimate(coverage, 0.015),
        fitted_on=1000,
        judged_on=2000,
        mean_size=means,
        size_shares={key: sizes(mean, classes) for key, mean in means.items()},
    )


def confusion(classes: list[str]) -> Confusion:
    """Eighty on the diagonal, and each class taken for the next as often as its position says."""
    size = len(classes)
    matrix = [[80 if i == j else i if j == (i + 1) % size else 0 for j in range(size)] for i in range(size)]
    most = [Confused(label=classes[i], predicted=classes[(i + 1) % size], count=i) for i in range(size - 1, 0, -1)]
    return Confusion(matrix=matrix, most=most)


def extended(record: Record, rename: Callable[[str], str]) -> Record:
    """The record with all its optional parts, consistent with its sweeps."""
    known = record.sets[0]
    street = SetSummary(name=rename("street"), role="unlabelled", source="folder:street", count=640,
                        shape=[1, 28, 28], mean_confidence=0.913, estimated_accuracy=0.884)  # fmt: skip
    ood = [item.name for item in record.sets if item.role == "ood"]
    guards: list[Operating] = []
    for sweep in record.sweeps[:2]:
        kept = [a + b for a, b in zip(sweep.accepted_correct, sweep.accepted_wrong, strict=True)]
        # Not where 95 % of the judged data are accepted: the threshold is from other data, between two of the sweep.
        at = next(i for i, share in enumerate(kept) if share >= 0.95) + 5
        passed = {name: column[at] for name, column in sweep.accepted_ood.items()}
        guards.append(
            Operating(
                score=sweep.score,
                calibration=rename("temperature"),
                keep=0.95,
                threshold=(sweep.thresholds[at] + sweep.thresholds[at + 1]) / 2,
                accepted={known.name: kept[at], street.name: 0.61, **passed},
                intervals={name: estimate(share, 0.013) for name, share in passed.items()},
                error=sweep.accepted_wrong[at] / kept[at],
                error_of_all=sweep.accepted_wrong[-1],
            )
        )
    means = {name: 1.6 + 0.9 * i for i, name in enumerate(ood)}
    merits = {item.name: 0.96 - 0.03 * i for i, item in enumerate(reversed(record.scores))}
    return record.model_copy(
        update={
            "sets": [known.model_copy(update={"estimated_accuracy": 0.9707}), *record.sets[1:], street],
            "calibrations": [
                *record.calibrations,
                *(calibration(rename(name), *rest) for name, *rest in CALIBRATIONS),
            ],
            "conformal": [
                conformal(rename("lac"), 0.1, 0.9073, {known.name: 1.013} | means),
                conformal(rename("aps"), 0.1, 0.8613, {known.name: 1.247} | {k: v + 1 for k, v in means.items()}),
            ],
            "choice": Choice(
                score=record.scores[1].name,
                why=rename("It finds the network's own mistakes and blended inputs best."),
                figures=merits | {record.scores[1].name: 0.971},
            ),
            "operating": guards,
            "confusion": confusion(record.classes),
            "per_class": [
                PerClass(
                    name=name,
                    count=150 + i,
                    accuracy=0.9 + i / 200,
                    mean_confidence=0.88 + i / 300,
                    auroc=None if i == 3 else 0.8 + i / 100,
                    accepted=0.91 + i / 250,
                )
                for i, name in enumerate(record.classes)
            ],
            "warnings": [rename("Never predicted, although in the test set: owl.")],
            "checks": [
                Check(condition=rename("ece>0.05"), value=0.0183, failed=False),
                Check(condition=rename("accuracy<0.98"), value=0.9733, failed=True),
            ],
        }
    )


def make_record(
    *,
    scores: int = 9,
    sets: int = 5,
    calibrated: bool = True,
    pictures: bool = True,
    rename: Callable[[str], str] = str,
    full: bool = False,
) -> Record:
    """`rename` is applied to every free text: names of sets, scores, classes and so on.

    `full`: with the parts that a record may lack; needs two scores.
    """
    rng = np.random.default_rng(7)
    names = [(f"{n}{'' if i < 9 else i // 9}", f, s) for i in range(scores) for n, f, s in [SCORES[i % 9]]]
    unknown_sets = [(f"{n}{'' if i < 5 else i // 5}", s, d) for i in range(sets) for n, s, d in [SETS[i % 5]]]
    classes = [rename(str(digit)) for digit in range(10)]
    parts: list[dict[str, Any]] = []
    detections: list[Detection] = []
    for name, family, strength in names:
        right, wrong = rng.normal(0, 1, RIGHT), rng.normal(strength * 0.7 + 0.4, 1.1, WRONG)
        ood = {rename(n): rng.normal(strength * d, 0.9, OOD) for n, _, d in unknown_sets}
        parts.append(score_parts(rename(name), family, (right, wrong), ood))
        for other, values in ood.items():
            found = curves(np.concatenate([right, wrong]), values)
            detections.append(
                Detection(
                    score=rename(name),
                    ood=other,
                    auroc=found["auroc"],
                    aupr_in=found["aupr_in"],
                    aupr_out=found["aupr_out"],
                    base_rate=OOD / (OOD + RIGHT + WRONG),
                    fpr_at_95_tpr=estimate(found["fpr"], 0.012),
                    detection_error=found["detection_error"],
                    roc=found["roc"],
                    precision_recall=found["pr"],
                )
            )
    calibrations = [calibration("none", 0.0183, 0.0176, {})]
    if calibrated:
        calibrations.append(calibration(rename("temperature"), 0.0047, 0.0021, {"temperature": 1.4137}))
    shown = [
        picture(kind, rename(where), rename(names[0][0] if names else "msp"), int(rng.integers(1500)), rng, classes)
        for kind, places in {
            "confident error": ["mnist"],
            "uncertain correct": ["mnist"],
            "accepted OOD": [n for n, _, _ in unknown_sets],
        }.items()
        for where in places
        for _ in range(8)
    ]
    plain = Record(
        caveat_version="0.1.0",
        created="2026-11-23T03:15:00Z",
        settings={"batch": 256, "bootstrap": 200, "seed": 0, "scores": [rename(n) for n, _, _ in names], "fit": None},
        model=rename("runs/mnist-lenet"),
        parameters=3274634,
        head=rename("fc2"),
        classes=classes,
        sets=[
            SetSummary(name=rename("mnist"), role="test", source="mnist:test", count=1500, shape=[1, 28, 28],
                       mean_confidence=0.9909),
            SetSummary(name=rename("mnist-fit"), role="train", source="mnist:train", count=5000, shape=[1, 28, 28]),
            *(SetSummary(name=rename(n), role="ood", source=s, count=OOD, shape=[1, 28, 28],
                         mean_confidence=0.35 + 0.1 * i % 0.6,
                         generated=s.startswith("noise")) for i, (n, s, _) in enumerate(unknown_sets)),
        ],
        split=rename("Scores were fitted on mnist:train, calibrations on half of mnist:test; the other half judges."),
        calibrations=calibrations,
        scores=[part["score"] for part in parts],
        detections=detections,
        selective=[part["selective"] for part in parts],
        sweeps=[part["sweep"] for part in parts],
        pictures=shown if pictures else [],
        notes=[rename("vim was fitted on the first 2,000 inputs only.")],
        seconds={"observe": 12.4, "fit": 3.77, "bootstrap": 8.1},
    )  # fmt: skip
    return Record.model_validate_json(extended(plain, rename).model_dump_json()) if full else plain


@pytest.fixture(scope="session")
def record() -> Record:
    return make_record()


@pytest.fixture(scope="session")
def full() -> Record:
    return make_record(full=True)


@pytest.fixture(scope="session")
def build() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def large() -> Record:
    return make_record(scores=40, sets=8, full=True)
