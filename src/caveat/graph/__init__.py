"""A network as a list of elementary operations: what bounds and rays walk."""

from caveat.graph.graph import CURVES, EVALUATE, Graph, Node, Rules, windows
from caveat.graph.operations import (
    AvgPool,
    Concat,
    Conv,
    Curve,
    Flip,
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
from caveat.graph.trace import assert_same, trace

__all__ = [
    "CURVES",
    "EVALUATE",
    "AvgPool",
    "Concat",
    "Conv",
    "Curve",
    "Flip",
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
    "assert_same",
    "trace",
    "windows",
]
