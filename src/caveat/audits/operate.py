"""What a decision would do: conformal sets, the threshold at a promised rate, the accuracy to expect unlabelled."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from caveat import calibration
from caveat.metrics.interval import interval_of_share
from caveat.observations import Observations
from caveat.records import record
from caveat.records.record import Estimate

__all__ = ["conformal", "operating"]

KEEP = 0.95
ERROR = 0.1


def operating(
    score: str,
    tuning_scores: Tensor,
    known_scores: Tensor,
    wrong: Tensor,
    others: Mapping[str, Tensor],
    *,
    keep: float = KEEP,
    calibrated_by: str = "temperature",
) -> record.Operating | None:
    """What a guard with this score does at the rate `keep`; None if there are too few samples for a threshold."""
    threshold = calibration.keeping_threshold(tuning_scores, keep)
    if threshold == float("inf"):
        return None
    kept = known_scores <= threshold
    return record.Operating(
        score=score,
        calibration=calibrated_by,
        keep=keep,
        threshold=threshold,
        accepted={"test": float(kept.double().mean())}
        | {name: float((values <= threshold).double().mean()) for name, values in others.items()},
        error=float(wrong[kept].double().mean()) if kept.any() else 0.0,
        error_of_all=float(wrong.double().mean()),
    )


def conformal(
    names: Sequence[str], tuning: Observations, evaluation: Observations, others: Mapping[str, Observations]
) -> list[record.Conformal]:
    """Conformal sets of each kind: do they hold the right class as often as promised, and how large are they?"""
    results: list[record.Conformal] = []
    for name in names:
        predict = calibration.CONFORMAL[name](tuning.logits, tuning.labels, error=ERROR)
        sizes: dict[str, Tensor] = {}
        hit = torch.zeros(0, dtype=torch.bool)
        for set_name, seen in {"test": evaluation, **others}.items():
            sets = predict(seen.logits)
            sizes[set_name] = sets.sum(dim=1)
            if set_name == "test":
                hit = sets.gather(1, seen.labels.unsqueeze(1)).squeeze(1)
        classes, share = evaluation.logits.shape[1], interval_of_share(int(hit.sum()), len(hit))
        results.append(
            record.Conformal(
                name=name,
                error=ERROR,
                coverage=Estimate(value=share.value, low=share.low, high=share.high),
                mean_size={key: float(size.double().mean()) for key, size in sizes.items()},
                size_shares={
                    key: (torch.bincount(size, minlength=classes + 1)[: classes + 1].double() / len(size)).tolist()
                    for key, size in sizes.items()
                },
            )
        )
    return results
