"""Which columns a meta classifier lives on."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.types import Score

__all__ = ["groups", "importances"]


def groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the columns of each layer and of each statistic, of names `layer/statistic`; others alone.

    >>> groups(["conv/l1", "conv/max", "head/l1", "entropy"])
    {'conv/*': [0, 1], 'head/*': [2], '*/l1': [0, 2], '*/max': [1], 'entropy': [3]}
    """
    layers: dict[str, list[int]] = {}
    statistics: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        layer, slash, statistic = name.rpartition("/")
        if not slash:
            others.setdefault(name, []).append(place)
            continue
        layers.setdefault(f"{layer}/*", []).append(place)
        statistics.setdefault(f"*/{statistic}", []).append(place)
    return layers | statistics | others


def importances(
    score: Callable[[Tensor], Score],
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    of: Mapping[str, Sequence[int]],
    *,
    generator: torch.Generator,
    repeats: int = 5,
    loss: Callable[[Score, Bool[Tensor, " n"]], float] | None = None,
) -> dict[str, float]:
    """By how much a loss grows when some columns are shuffled together over the samples.

    `score` gives probabilities of `wrong`; use data that it was not fitted on. Near 0: not needed, perhaps because
    others say the same. Costs `repeats` evaluations a group.

    loss
        Of scores and what is wrong; by default the log loss, in nats. One of their order alone (1 - AUROC) does not
        mind that there are more OOD inputs than in fitting.

    Raises
    ------
    OptionError
        If `repeats` is not positive.

    Source: Breiman, Random Forests, Machine Learning 2001, section 10 (permutation importance).
    """
    if repeats < 1:
        raise OptionError(f"repeats: expected at least 1, got {repeats}")
    columns = columns.double()
    loss = loss or _log_loss
    plain = loss(score(columns), wrong)
    found: dict[str, float] = {}
    for name, places in of.items():
        losses: list[float] = []
        for _ in range(repeats):
            order = torch.randperm(len(columns), generator=generator)
            mixed = columns.clone()
            mixed[:, list(places)] = columns[order][:, list(places)]
            losses.append(loss(score(mixed), wrong))
        found[name] = sum(losses) / repeats - plain
    return found


def _log_loss(probs: Score, wrong: Tensor) -> float:
    chosen = torch.where(wrong, probs, 1 - probs).double()
    return float(-chosen.clamp_min(1e-12).log().mean())
