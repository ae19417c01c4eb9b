"""What a decision would do: conformal sets, the threshold at a promised rate, the accuracy to expect unlabelled."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from caveat import calibration
from caveat.audits.judge import share
from caveat.guard.decision import Decision
from caveat.observations import Observations
from caveat.records import record

__all__ = ["conformal", "operating"]

ERROR = 0.1


def operating(guard: Decision, known: Tensor, wrong: Tensor, others: Mapping[str, Tensor]) -> record.Operating:
    """What a guard does with every set: scores of the evaluation split, which of its answers are wrong, of others."""
    threshold = guard.promise.threshold
    accepted = known <= threshold
    passed = {"test": accepted} | {name: values <= threshold for name, values in others.items()}
    return record.Operating(
        score=guard.score.name,
        calibration=guard.calibration,
        keep=guard.promise.level,
        threshold=threshold,
        accepted={name: float(values.double().mean()) for name, values in passed.items()},
        intervals={name: share(values) for name, values in passed.items()},
        error=float(wrong[accepted].double().mean()) if accepted.any() else 0.0,
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
                coverage=share(hit),
                fitted_on=len(tuning),
                judged_on=len(evaluation),
                mean_size={key: float(size.double().mean()) for key, size in sizes.items()},
                size_shares={
                    key: (torch.bincount(size, minlength=classes + 1)[: classes + 1].double() / len(size)).tolist()
                    for key, size in sizes.items()
                },
            )
        )
    return results
