"""A piecewise affine network as a list of elementary operations: what bounds and rays walk."""

from caveat.graph.graph import EVALUATE, Graph, Node, Rules
from caveat.graph.operations import (
    AvgPool,
    Concat,
    Conv,
    Linear,
    MaxPool,
    Mean,
    Operation,
    Pad,
    Permute,
    Relu,
    Reshape,
    Scale,
    Slice,
    Sum,
)
from caveat.graph.trace import trace

__all__ = [
    "EVALUATE",
    "AvgPool",
    "Concat",
    "Conv",
    "Graph",
    "Linear",
    "MaxPool",
    "Mean",
    "Node",
    "Operation",
    "Pad",
    "Permute",
    "Relu",
    "Reshape",
    "Rules",
    "Scale",
    "Slice",
    "Sum",
    "trace",
]
