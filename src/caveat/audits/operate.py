"""What a decision would do: conformal sets, the threshold at a promised rate, the accuracy to expect unlabelled."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from caveat import calibration
from caveat.audits import record
from caveat.audits.record import Estimate
from caveat.observations import Observations

__all__ = ["conformal", "keeping_threshold", "operating"]

KEEP = 0.95
ERROR = 0.1


def keeping_threshold(scores: Tensor, keep: float) -> float:
    """The smallest threshold that keeps a fresh known sample with probability at least `keep`.

    Of n scores it is the ceil((n + 1) keep)-th smallest (split conformal prediction); infinite if n is too small.
    """
    rank = -int(-((len(scores) + 1) * keep) // 1)  # ceil
    rank = max(1, rank)
    return float(scores.kthvalue(rank).values) if rank <= len(scores) else float("inf")


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
    threshold = keeping_threshold(tuning_scores, keep)
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
        classes = evaluation.logits.shape[1]
        results.append(
            record.Conformal(
                name=name,
                error=ERROR,
                coverage=_share(int(hit.sum()), len(hit)),
                mean_size={key: float(size.double().mean()) for key, size in sizes.items()},
                size_shares={
                    key: (torch.bincount(size, minlength=classes + 1)[: classes + 1].double() / len(size)).tolist()
                    for key, size in sizes.items()
                },
            )
        )
    return results


def _share(hits: int, count: int, z: float = 1.959964) -> Estimate:
    """A share with Wilson's 95 % interval."""
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))
