"""Certified detection of OOD inputs: how confident a network can become anywhere near an input, at most."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.attacks.network import answered
from caveat.bounds.deeppoly import MEMORY
from caveat.bounds.outputs import bounds
from caveat.bounds.region import Box
from caveat.errors import DataError
from caveat.graph import Graph

__all__ = ["guaranteed_auroc", "highest_confidence"]


def highest_confidence(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    where: Ball | Box,
    *,
    method: Literal["alpha", "deeppoly", "interval"] = "deeppoly",
    memory: int = MEMORY,
    graph: Graph | None = None,
) -> Float[Tensor, " n"]:
    """An upper bound of the maximum softmax probability over a whole ball or box around each input, in [1/c, 1].

    Where it lies below a threshold, no input of the region is accepted by a guard with that threshold on `msp`: the
    opposite of what an attack tells. Sound, not exact. Costs c (c - 1) linear forms in `deeppoly`, a hundred times that
    in `alpha`, four forward passes in `interval`. `memory` and `graph` are as in `bounds`.

    Formula: max_k 1 / (1 + Σ_{j≠k} exp(l_jk)), l_jk a lower bound of f_j - f_k over the region.

    Raises
    ------
    ModelError, DataError, OptionError
        As `bounds`.

    Source: J. Bitterwolf, A. Meinke, M. Hein, Certifiably adversarially robust detection of out-of-distribution data
    (GOOD), NeurIPS 2020, equation 5.

    Example
    -------
    >>> net = nn.Linear(1, 2)
    >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.zeros(2)})
    >>> round(float(highest_confidence(net.eval(), torch.zeros(1, 1), Ball(torch.inf, 0.5))), 4)  # sigmoid(1)
    0.7311
    """
    with torch.no_grad():
        classes = answered(model, inputs[:1]).shape[1]
    first, second = torch.triu_indices(classes, classes, 1)
    forms = torch.eye(classes)[first] - torch.eye(classes)[second]
    low, high = bounds(model, inputs, where, method=method, outputs=forms, memory=memory, graph=graph)
    apart = low.new_full((len(inputs), classes, classes), -torch.inf)  # [j, k]: a lower bound of f_j - f_k
    apart[:, first, second], apart[:, second, first] = low, -high
    others = apart.logsumexp(dim=1)  # log Σ_j exp(l_jk), for every k
    return torch.sigmoid(-others).amax(dim=1)


def guaranteed_auroc(known: Float[Tensor, " n"], highest: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """AUROC that no attack within the regions can push lower: confidence on in-distribution inputs against the bounds.

    `known` are maximum softmax probabilities of in-distribution inputs, `highest` upper bounds of those near
    OOD inputs. Ties count against the detector.

    Formula: share of pairs with highest < known.

    Raises
    ------
    DataError
        If a side is empty, or holds what is no probability.

    Source: J. Bitterwolf et al. (GOOD), NeurIPS 2020, section 4 (guaranteed AUC).

    Example
    -------
    >>> float(guaranteed_auroc(torch.tensor([0.9, 0.8]), torch.tensor([0.5, 0.8, 1.0])))  # 1 and 2 of 3 below
    0.5
    """
    for name, values in (("known", known), ("highest", highest)):
        if not len(values):
            raise DataError(f"{name}: expected at least one probability, got none")
        off = values[~((values >= 0) & (values <= 1))]
        if len(off):
            raise DataError(f"{name}: expected probabilities, from 0 to 1, got {float(off[0]):g}")
    ordered = highest.double().sort().values
    below = torch.searchsorted(ordered, known.double(), right=False)
    return below.double().mean() / len(ordered)
