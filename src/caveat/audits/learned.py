"""What the gradients of each set look like, and which of their statistics the meta classifiers live on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally
from caveat.observations import Observations
from caveat.records.gradients import GradientStatistic, MetaClassifier
from caveat.sampling import thinned
from caveat.scores import gradients, meta
from caveat.scoring import catalog
from caveat.scoring.kinds import columns as columns_of

__all__ = ["learned", "strips"]

BINS = 32
SIGNED = ("mean", "skewness")
SHOWN = 8
"""Coefficients and groups kept of each meta classifier."""
JUDGE = 4000
"""Samples of each set at most that importances are measured on."""


def strips(known: Observations, wrong: Tensor, ood: Mapping[str, Observations]) -> list[GradientStatistic]:
    """How the seven statistics over all parameters are spread; empty if no gradients were observed."""
    if "gradients" not in known.probed:
        return []
    parts = {"correct": known.part((~wrong).nonzero().flatten()), "wrong": known.part(wrong.nonzero().flatten())}
    rows = {name: seen.probed["gradients"].double() for name, seen in {**parts, **ood}.items() if len(seen)}
    return [_strip(statistic, {name: found[:, place - 7] for name, found in rows.items()})
            for place, statistic in enumerate(gradients.STATISTICS)]  # fmt: skip


def _strip(statistic: str, columns: Mapping[str, Tensor]) -> GradientStatistic:
    logarithmic = statistic not in SIGNED
    seen = {
        name: (column.abs().clamp_min(1e-37).log10() if logarithmic else column).contiguous()
        for name, column in columns.items()
    }
    low = min(float(_quantile(column, 0.01)) for column in seen.values())
    high = max(float(_quantile(column, 0.99)) for column in seen.values())
    high = high if high > low else low + 1
    inner = torch.linspace(low, high, BINS + 1, dtype=torch.float64)[1:-1]
    bins: dict[str, list[float]] = {}
    for name, column in seen.items():
        counts = torch.bincount(torch.bucketize(column, inner), minlength=BINS).double()
        bins[name] = [_short(share) for share in (counts / counts.max()).tolist()]
    ends = [10**low, 10**high] if logarithmic else [low, high]
    ends = [float(f"{end:.4g}") for end in ends]
    return GradientStatistic(
        statistic=statistic, logarithmic=logarithmic, low=ends[0], high=ends[1],
        median={name: _short(float(column.median())) for name, column in columns.items()}, bins=bins,
    )  # fmt: skip


def learned(
    fitted: Mapping[str, catalog.FittedScore],
    known: Observations,
    wrong: Tensor,
    ood: Mapping[str, Observations],
    *,
    seed: int,
) -> list[MetaClassifier]:
    """Coefficients and permutation importances of the meta classifiers, on data that they were not fitted on."""
    found: list[MetaClassifier] = []
    if not any(score.kind.learns_mistakes for score in fitted.values()):
        return found
    parts = [seen.thinned(JUDGE) for seen in (known, *ood.values())]
    truth = torch.cat([wrong, *(wrong.new_ones(len(seen)) for seen in ood.values())])
    truth = torch.cat([thinned(part, JUDGE) for part in truth.split([len(known), *(len(s) for s in ood.values())])])
    if not bool(truth.any()) or bool(truth.all()):
        return found
    for name, score in fitted.items():
        if not score.kind.learns_mistakes or score.fitted is None:
            continue
        columns = torch.cat([columns_of(seen.probed["gradients"], seen.logits) for seen in parts])
        names = getattr(score.fitted, "names", ())
        shuffled = meta.importances(
            score.fitted,
            columns,
            truth,
            meta.groups(names),
            generator=torch.Generator().manual_seed(seed),
            repeats=2,
            loss=_disorder,
        )
        linear = score.fitted if isinstance(score.fitted, meta.Linear) else None
        weights: dict[str, float] = {} if linear is None else dict(zip(names, linear.weight.tolist(), strict=True))
        found.append(
            MetaClassifier(
                score=name, penalty=None if linear is None else linear.strength, weights=_largest(weights),
                importances=_largest(shuffled),
            )
        )  # fmt: skip
    return found


def _disorder(probs: Tensor, wrong: Tensor) -> float:
    return 1 - float(auroc(tally(probs, wrong)))


def _largest(values: Mapping[str, float]) -> dict[str, float]:
    kept = sorted(values, key=lambda name: -abs(values[name]))[:SHOWN]
    return {name: _short(values[name]) for name in kept}


def _quantile(column: Tensor, level: float) -> Tensor:
    return column.sort().values[round(level * (len(column) - 1))]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
