"""Proofs of certificates, which `bounds.checker` checks by itself: the network, and for each verified sample a file.

A proof holds the claimed bounds of every ReLU's argument, slopes of the lines below ReLUs by which they follow, and
leaves: for each other class, and each part of the region that branch and bound made, slopes and multipliers by which
the label's margin is above 0. What is written was found with the checker's own arithmetic, so it is accepted.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caveat.attacks import Ball
from caveat.bounds import checker
from caveat.bounds.alpha import first, raised, tightened
from caveat.bounds.branch import Part, decided
from caveat.bounds.certify import TIMED
from caveat.bounds.deeppoly import known
from caveat.bounds.outputs import forms
from caveat.bounds.region import Region
from caveat.bounds.values import Known
from caveat.errors import ModelError, OptionError
from caveat.files import parse_json, read_bytes, write_bytes
from caveat.graph import Conv, Curve, Graph, Linear, Node, Relu, Reshape, Scale, Sum
from caveat.tensors import pack, read_header

__all__ = ["Folder", "network", "prove"]

STEPS = 20
"""Of the ascent on the slopes of the last back-substitution."""
LOOSER = 1e-9
"""By how much less is claimed than was found: sums in another order, on another machine, give the same but for this."""
Method = Literal["interval", "deeppoly", "alpha", "branch"]
Shares = dict[int, np.ndarray]


def network(graph: Graph) -> bytes:
    """The content of `network.safetensors`; its SHA-256 names the network in every proof.

    Batch normalisation is one multiplication and one addition, as `graph.trace` has it.

    Raises
    ------
    ModelError
        If an operation is none of those that the checker knows; it is named, with its layer. If a type is neither
        float32 nor float64.
    """
    tensors, nodes = dict[str, Tensor](), list[object]()
    for k, node in enumerate(graph.nodes[: graph.output], 1):
        kind, weight, shift, stride, padding = _lowered(node, graph)
        nodes.append({
            "kind": kind, "of": node.arguments, "shape": node.shape, "stride": stride, "padding": padding,
        })  # fmt: skip
        if weight is not None:
            if weight.dtype not in (torch.float32, torch.float64):
                raise ModelError(f"model: proofs are of float32 and float64, got {weight.dtype} (in {node.where})")
            tensors |= {f"{k}.weight": weight, f"{k}.shift": weight.new_zeros(1) if shift is None else shift}
    about = {"format": "caveat network 1", "shape": graph.input_shape, "nodes": nodes}
    return pack(tensors, header={"caveat": json.dumps(about)})


def _lowered(node: Node, graph: Graph) -> tuple[str, Tensor | None, Tensor | None, tuple[int, ...], tuple[int, ...]]:
    """Kind, weight, shift, stride and padding."""
    op = node.operation
    if isinstance(op, Linear) and len(node.shape) == 1:
        return "linear", op.weight, op.bias, (), ()
    if isinstance(op, Conv):
        shift = None if op.bias is None else op.bias.reshape(-1, *[1] * (op.weight.ndim - 2))
        return "conv", _dense(op), shift, op.stride, op.padding
    if isinstance(op, Relu) and not isinstance(op.slope, Tensor) and op.slope == 0:
        return "relu", None, None, (), ()
    if isinstance(op, Scale):
        factor, shift = (
            value[0] if isinstance(value, Tensor) and value.ndim > len(node.shape) else torch.as_tensor(value).double()
            for value in (op.factor, op.shift)
        )
        return "scale", factor.reshape(factor.shape or (1,)), shift.reshape(shift.shape or (1,)), (), ()
    shapes = {graph.nodes[place - 1].shape if place else graph.input_shape for place in node.arguments}
    if isinstance(op, Sum) and len(op.factors) == 2 and shapes == {node.shape}:
        return "sum", torch.tensor(op.factors, dtype=torch.float64), None, (), ()
    if isinstance(op, Reshape):
        return "reshape", None, None, (), ()
    kind = op.name if isinstance(op, Curve) else "leaky ReLU" if isinstance(op, Relu) else type(op).__name__
    raise ModelError(
        f"model: no proof is written for {kind} (in {node.where}); the checker knows linear maps, "
        "convolutions, batch normalisation, ReLU, sums of two and reshapes"
    )


def _dense(op: Conv) -> Tensor:
    """The kernel without groups and dilation: zeros between."""
    out, per, *kernel = op.weight.shape
    sizes = [d * (k - 1) + 1 for d, k in zip(op.dilation, kernel, strict=True)]
    weight = op.weight.new_zeros(out, per * op.groups, *sizes)
    spread = tuple(slice(None, None, d) for d in op.dilation)
    for group in range(op.groups):
        rows, columns = (slice(group * n, (group + 1) * n) for n in (out // op.groups, per))
        weight[(rows, columns, *spread)] = op.weight[rows]
    return weight


@dataclass
class _Leaves:
    """Parts of the region, each with the form that is above 0 there."""

    forms: np.ndarray
    """The other class."""
    shares: Shares | None
    splits: np.ndarray
    """Rows of leaf, ReLU, value and sign."""
    pulls: np.ndarray


@dataclass
class _Proof:
    """One that is being made."""

    net: checker.Network
    graph: Graph
    """In float64."""
    matrix: Float[Tensor, "m c"]
    """Label minus each other class, in their order."""
    arrays: dict[str, np.ndarray]
    box: tuple[np.ndarray, np.ndarray]
    unit: float

    def bounded(self, *, refine: bool, alpha: Mapping[int, Mapping[int, Tensor]] | None = None) -> checker.Bounds:
        """Claim bounds of every ReLU's argument: of intervals, or also by DeepPoly's slopes, and those of alpha."""

        def claimed(now: checker.Bounds, k: int, *ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shares = self.adaptive(now) if refine else {}
            place = self.net.nodes[k - 1].of[0]
            if alpha and place in alpha:
                shares = {j: np.concatenate([share, _numbers(alpha[place][j])]) for j, share in shares.items()}
            low, high = ends[0].copy(), ends[1].copy()
            which = np.flatnonzero((low < 0) & (high > 0)) if shares else np.zeros(0, int)
            for each in range(len(next(iter(shares.values()))) if len(which) else 0):
                share = {j: value[each : each + 1].astype(float) for j, value in shares.items()}
                up, down = (checker.single(self.net, now, place, which, sign, share) for sign in (1.0, -1.0))
                low.flat[which], high.flat[which] = (
                    np.maximum(low.flat[which], up), np.minimum(high.flat[which], -down)
                )  # fmt: skip
            low, high = _less(low), -_less(-high)
            self.arrays |= {f"low.{k}": low[0], f"high.{k}": high[0]}
            self.arrays |= {f"slope.{k}.{j}": share for j, share in shares.items()}
            return np.maximum(low, ends[0]), np.minimum(high, ends[1])

        return checker.bounded(self.net, self.box, self.unit, claimed)

    def adaptive(self, now: checker.Bounds) -> Shares:
        """DeepPoly's choice of slopes, for the ReLUs that are bounded so far."""
        found = Shares()
        for k, node in enumerate(self.net.nodes, 1):
            if node.kind == "relu" and k in now.ends:
                low, high = now.ends[node.of[0]]
                found[k] = (high >= -low).astype(np.float32)
        return found

    def proved(
        self, now: checker.Bounds, others: np.ndarray, shares: Shares | None
    ) -> tuple[list[_Leaves], np.ndarray]:
        """The whole region as a leaf for each form that is above 0 there; and the classes that are left."""
        wide = shares and {k: share.astype(float) for k, share in shares.items()}
        values = checker.lowest(self.net, now, len(self.net.nodes), self.rows(others), wide)
        sure = _less(values) > 0
        own = shares and {k: share if len(share) == 1 else share[sure] for k, share in shares.items()}
        none = np.zeros((0, 4), np.int64), np.zeros(0, np.float32)
        return [_Leaves(others[sure], own, *none)] if sure.any() else [], others[~sure]

    def split(self, part: Part) -> _Leaves:
        """What branch and bound proved, as leaves."""
        splits, pulls = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.float32)]
        for k, node in enumerate(self.net.nodes, 1):
            if node.kind == "relu" and node.of[0] in part.split:
                signs = part.split[node.of[0]].flatten(1).numpy()
                leaf, value = signs.nonzero()
                splits.append(np.stack([leaf, np.full_like(leaf, k), value, signs[leaf, value].astype(np.int64)], 1))
                pulls.append(_numbers(part.multipliers[node.of[0]].flatten(1))[leaf, value])
        shares = {k: _numbers(share) for k, share in part.slopes.items()}
        return _Leaves(part.matrix.argmin(1).numpy(), shares, np.concatenate(splits), np.concatenate(pulls))

    def others(self) -> np.ndarray:
        """All classes but the label."""
        return self.matrix.argmin(1).numpy()

    def matrix_of(self, others: np.ndarray) -> Tensor:
        """The forms of some classes."""
        return self.matrix[np.searchsorted(self.others(), others)]

    def rows(self, others: np.ndarray) -> np.ndarray:
        """The same for the checker."""
        return self.matrix_of(others).numpy()

    def region(self) -> Region:
        """For PyTorch."""
        low, high = (torch.from_numpy(end) for end in self.box)
        return Region.around(low, (low, high))

    def stricter(self) -> float:
        """A unit by which the usual rule, 4 sqrt(n + 2) u, asks for as much as the checker's, 2 (n + 2) u."""
        terms = max(node.terms for node in self.net.nodes)
        return max(1.1 * math.sqrt(terms + 2) / 2 * self.unit, self.net.longest * checker.U)


def prove(
    net: checker.Network,
    graph: Graph,
    inputs: Float[Tensor, "1 ..."],
    label: int,
    ball: Ball,
    *,
    method: Method = "deeppoly",
    seconds: float | None = None,
    about: Mapping[str, object] | None = None,
) -> bytes | None:
    """A proof that the network answers `label` on the whole ball around one input; None if none was found.

    First it is tried for the network as it is computed in its own type, with the checker's strict rule of rounding;
    then for exact arithmetic. It costs about what the certificate did.

    Parameters
    ----------
    net
        `checker.network(network(graph))`.
    graph
        The model's `graph.trace`.
    seconds
        Of `alpha` and `branch`, as of `bounds.certify`.
    about
        What else the proof should say of itself.

    Raises
    ------
    OptionError
        If the ball's norm is not inf.
    """
    if ball.norm != math.inf:
        raise OptionError(f"ball: proofs are of norm inf alone, got norm {ball.norm:g}")
    own = "float64" if inputs.dtype == torch.float64 else "float32"
    x, double = inputs[0].detach().cpu().numpy(), graph.to(torch.float64)
    matrix = forms(torch.tensor([label]), double)[0]
    until = time.perf_counter() + (TIMED.get(method, math.inf) if seconds is None else seconds)
    for rounding in (own, "exact"):
        unit, clip = checker.UNITS[rounding], (ball.low, ball.high)
        making = _Proof(net, double, matrix, {}, checker.ball(x, ball.radius, clip, unit), unit)
        now, leaves = _found(making, method, until)
        if now is None:
            continue
        said = dict(about or {}) | {
            "format": "caveat proof 1", "network": net.sha256, "label": label, "radius": ball.radius, "clip": clip,
            "rounding": rounding, "method": method,
        }  # fmt: skip
        data = _written(making, now, leaves, x, said)
        try:
            checker.checked(data, net)
        except checker.Refused:
            continue
        return data
    return None


@dataclass(frozen=True)
class Folder:
    """Where the proofs of one run are kept: the network once, and a file for each verified sample."""

    path: Path
    net: checker.Network
    graph: Graph
    ball: Ball
    method: Method
    seconds: float | None
    run: str

    @classmethod
    def begun(
        cls,
        path: Path,
        graph: Graph,
        ball: Ball,
        *,
        method: Method,
        seconds: float | None,
        settings: Mapping[str, object],
    ) -> "Folder":
        """Write the network there; `settings` are what the run is made with.

        Raises
        ------
        ModelError
            As `network`.
        OptionError
            If the folder holds proofs of another network or run.
        """
        data = network(graph)
        run = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()
        kept = path / checker.NETWORK
        other = kept.exists() and read_bytes(kept, name="--proof") != data
        if other or any(cls._run(file) != run for file in path.glob("*.safetensors") if file != kept):
            raise OptionError(f"--proof: {path} holds proofs of another network or run; choose another folder")
        write_bytes(kept, data)
        return cls(path, checker.network(data), graph, ball, method, seconds, run)

    @staticmethod
    def _run(file: Path) -> object:
        return parse_json(read_header(file, name="--proof").get("caveat", "{}"), name="--proof", where=file).get("run")

    def file(self, index: int) -> Path:
        """Of one sample."""
        return self.path / f"{index:06d}.safetensors"

    def keep(self, index: int, inputs: Float[Tensor, "1 ..."], label: int) -> None:
        """Prove a sample and write the proof, if one is found."""
        about = {"index": index, "run": self.run}
        made = prove(
            self.net, self.graph, inputs, label, self.ball, method=self.method, seconds=self.seconds, about=about
        )
        if made is not None:
            write_bytes(self.file(index), made)


def _found(making: _Proof, method: str, until: float) -> tuple[checker.Bounds | None, list[_Leaves]]:
    """What proves every form: one method after the other, up to the one that is named; None if some are left."""
    now = making.bounded(refine=method != "interval")
    leaves, left = making.proved(now, making.others(), making.adaptive(now) if method != "interval" else None)
    if not len(left) or method in ("interval", "deeppoly"):
        return (None if len(left) else now), leaves
    unit, region = making.stricter(), making.region()
    with torch.no_grad():
        start = known(making.graph, region, unit=unit)
    better = tightened(start, making.matrix_of(left)[None], unit=unit, until=until)
    now = making.bounded(refine=True, alpha=better.slopes)
    leaves, left = making.proved(now, making.others(), making.adaptive(now))
    if not len(left):
        return now, leaves
    ends = {k: (torch.from_numpy(low), torch.from_numpy(high)) for k, (low, high) in now.ends.items()}
    with torch.no_grad():
        root = known(making.graph, region, unit=unit, refine=False, start=Known(making.graph, region, ends))
    wide, lines = root.of(torch.zeros(len(left), dtype=torch.long)), first(root)
    lines = {k: share.expand(len(left), *share.shape[1:]) for k, share in lines.items()}
    found = raised(wide, making.matrix_of(left), slopes=lines, multipliers={}, split={}, steps=STEPS, until=until)
    more, left = making.proved(now, left, {k: _numbers(share) for k, share in found.slopes.items()})
    leaves += more
    if not len(left) or method == "alpha":
        return (None if len(left) else now), leaves
    parts = list[Part]()
    proved, _ = decided(
        root, making.matrix_of(left), unit=unit, until=until, attack=lambda points: None, record=parts.append
    )
    return (now if proved else None), leaves + [making.split(part) for part in parts if len(part)]


def _written(making: _Proof, now: checker.Bounds, leaves: list[_Leaves], x: np.ndarray, about: object) -> bytes:
    """The file, with as much of every margin claimed as the checker finds."""
    margins, splits, start = list[np.ndarray](), list[np.ndarray](), 0
    for each in leaves:
        wide = each.shares and {k: share.astype(float) for k, share in each.shares.items()}
        rows = making.rows(each.forms)
        found = checker.leaf_bounds(making.net, now, rows, each.splits, each.pulls, wide)
        margins.append(_less(np.minimum(found, checker.HUGE)))
        splits.append(each.splits + np.array([start, 0, 0, 0]))
        start += len(each.forms)
    kept, pulls = [each.forms for each in leaves], [each.pulls for each in leaves]
    arrays = making.arrays | {
        "input": x, "leaf.form": np.concatenate(kept), "leaf.margin": np.concatenate(margins),
        "leaf.split": np.concatenate(splits), "leaf.pull": np.concatenate(pulls),
    }  # fmt: skip
    for k in leaves[0].shares or {}:
        shares = [each.shares[k] for each in leaves if each.shares]
        if len(shares) > 1:  # of one row where all leaves share it
            counts = zip(shares, kept, strict=True)
            shares = [np.broadcast_to(share, (len(own), *share.shape[1:])) for share, own in counts]
        arrays[f"slope.{len(making.net.nodes) + 1}.{k}"] = np.concatenate(shares)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    return pack(tensors, header={"caveat": json.dumps(about, sort_keys=True)})


def _numbers(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().astype(np.float32)


def _less(low: np.ndarray) -> np.ndarray:
    return low - LOOSER * (1 + abs(low))
