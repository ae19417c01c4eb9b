"""Bounds of a network's outputs, or of linear forms of them, over a region."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.attacks.network import answered, check_type, classes_of
from caveat.bounds.alpha import tightened
from caveat.bounds.deeppoly import MEMORY, known, lower, unit_of
from caveat.bounds.region import Box, Region
from caveat.bounds.values import Known
from caveat.errors import DataError, ModelError, OptionError, known_name
from caveat.graph import Graph, assert_same, trace
from caveat.types import Labels

__all__ = ["bounds", "check_memory", "forms", "rounding", "traced"]

METHODS = ("alpha", "deeppoly", "interval")
MANY = 64
"""Inputs of a batch at which a list of operations is compared with its network."""


def bounds(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    where: Ball | Box,
    *,
    method: Literal["alpha", "deeppoly", "interval"] = "deeppoly",
    outputs: Float[Tensor, "m c"] | Literal["logits", "margins"] = "logits",
    labels: Labels | None = None,
    memory: int = MEMORY,
    graph: Graph | None = None,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """What linear forms of a network's logits cannot leave, over all inputs of a ball or box around each input.

    Sound, not exact: the true range lies within. `interval` costs four forward passes and is useful for networks that
    were trained with it; `deeppoly` (also called CROWN) carries every value whose sign is open back to the inputs, and
    is never looser here; `alpha` optimises its lines for each form of each sample, at about a hundred times the cost,
    and is never looser than that. Bounds hold for what the network computes in its own floating point type
    (`bounds.deeppoly` says how).

    Parameters
    ----------
    where
        A `Ball` of norm inf, 2 or 1, of which only what lies in its box of valid values counts; or a box, two tensors
        of the inputs' shape.
    outputs
        `logits`; `margins`, the label's logit minus each other one, `(n, c - 1)`, in the order of the classes; or a
        matrix: bounds of `outputs @ logits`.
    labels
        For margins: by default what the model answers.
    memory
        Bytes that coefficients may take at once.
    graph
        The model's `graph.trace`, which takes a second or two, where it is known already.

    Returns
    -------
    Lower and upper bounds, in float64.

    Raises
    ------
    ModelError
        If the model is in training mode, or has operations that no bounds are known for (the message names the layer).
    DataError
        If inputs are outside of the ball's box, the matrix does not fit the logits, or labels are no classes.
    OptionError
        If a name is unknown, or labels are given without margins.

    Formula: f(x) >= A x + b with A, b from back-substitution through linear relaxations, least over the region.

    Source: Singh et al., An abstract domain for certifying neural networks, POPL 2019; Zhang et al., Efficient neural
    network robustness certification with general activation functions, NeurIPS 2018 (arXiv 1811.00866); intervals:
    Gowal et al., 2018 (arXiv 1810.12715).

    Example
    -------
    >>> net = nn.Linear(2, 2)
    >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0, 2.0], [0.0, -1.0]]), "bias": torch.zeros(2)})
    >>> low, high = bounds(net.eval(), torch.full((1, 2), 0.5), Ball(torch.inf, 0.1), outputs="margins")
    >>> round(float(low), 4), round(float(high), 4)
    (1.6, 2.4)
    """
    known_name("method", method, METHODS)
    check_memory(memory)
    if isinstance(outputs, str):
        known_name("outputs", outputs, ("logits", "margins"))
    if labels is not None and not (isinstance(outputs, str) and outputs == "margins"):
        raise OptionError("labels: they are looked at with outputs='margins' alone; leave them out")
    region = Region.around(inputs, where)
    if not len(inputs):
        raise DataError("inputs: expected at least one sample, got none")
    graph, unit = traced(model, inputs, graph), unit_of(model, inputs)
    with torch.no_grad():
        if outputs == "logits":
            classes = _classes(graph)
            matrix = torch.eye(classes, dtype=torch.float64, device=inputs.device).expand(len(inputs), classes, classes)
        elif isinstance(outputs, str):
            matrix = forms(answered(model, inputs).argmax(1) if labels is None else labels, graph)
        elif outputs.ndim != 2 or outputs.shape[1] != _classes(graph):
            raise DataError(f"outputs: expected a matrix (m, {_classes(graph)}), got shape {tuple(outputs.shape)}")
        else:
            matrix = outputs.double().expand(len(inputs), *outputs.shape)
        found = known(graph, region, unit=unit, refine=method != "interval", memory=memory)
        both = torch.cat([matrix, -matrix], dim=1)
        if method == "alpha":
            low = torch.cat(
                [_optimised(found.of(row), both[row], unit, memory) for row in torch.arange(len(inputs)).split(1)]
            )
        else:
            low = lower(found, both, full=method == "deeppoly", memory=memory)
        return low[:, : matrix.shape[1]], -low[:, matrix.shape[1] :]


def _optimised(found: Known, matrix: Tensor, unit: float, memory: int) -> Tensor:
    """Of one sample: all coefficients are kept for the gradient."""
    return tightened(found, matrix, unit=unit, memory=memory, enough=math.inf).values


def check_memory(memory: int) -> None:
    """Refuse what is no number of bytes.

    Raises
    ------
    OptionError
        If it is not above 0.
    """
    if memory <= 0:
        raise OptionError(f"memory: expected a number of bytes above 0, got {memory}")


def forms(labels: Labels, graph: Graph) -> Float[Tensor, "n m c"]:
    """Of each sample the matrix that makes margins of logits.

    Raises
    ------
    DataError
        If labels are no classes of the network.
    """
    count = _classes(graph)
    labels, eye = classes_of(labels, count), torch.eye(count, dtype=torch.float64, device=labels.device)
    others = torch.arange(count, device=labels.device).expand(len(labels), -1)
    others = others[others != labels[:, None]].reshape(len(labels), count - 1)
    return eye[labels][:, None] - eye[others]


def rounding(model: nn.Module) -> str:
    """Why next to nothing can be proved of a network in half precision, as a sentence; empty of any other."""
    coarse = {one.dtype for one in model.parameters()} & {torch.float16, torch.bfloat16}
    if not coarse:
        return ""
    kind = str(coarse.pop()).removeprefix("torch.")
    return (
        f"The network computes in {kind}, whose rounding is part of every bound: next to nothing can be proved of it. "
        "The same weights in float32 are another network, of which more can be."
    )


def traced(model: nn.Module, inputs: Float[Tensor, "n ..."], graph: Graph | None = None) -> Graph:
    """The network as a list of operations in float64, from another such list if there is one.

    Raises
    ------
    ModelError
        As `graph.trace`; if the list is not of this model, with the weights that it has now; if it gives no logits
        (n, c).
    """
    check_type(model, inputs)
    made = (trace(model, inputs) if graph is None else graph).to(torch.float64, inputs.device)
    if graph is None:  # of one sample and of this batch: a forward pass may look at how many there are
        assert_same(made, model, inputs[:1])
        assert_same(made, model, inputs[:MANY])
    else:
        assert_same(made, model, inputs[:2])
    _classes(made)
    return made


def _classes(graph: Graph) -> int:
    shape = graph.nodes[graph.output - 1].shape if graph.output else graph.input_shape
    if len(shape) != 1:
        raise ModelError(f"model: expected logits (n, c), got a shape of {('n', *shape)}")
    return shape[0]
