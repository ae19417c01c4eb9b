"""Checks proofs that `caveat certify --proof` wrote. It stands alone: Python and NumPy, neither Caveat nor PyTorch.

    python checker.py proofs/

A folder holds `network.safetensors`, a list of operations with their weights, and one file for each proof. An accepted
proof shows: on every input of the ball around its sample, the label's logit is the largest. Nothing in it is taken on
trust. It names slopes of the lines below ReLUs, and multipliers; all in range are sound. Bounds that it claims, of
every ReLU's argument and of the margins, are computed anew from what was checked before, and must follow. The leaves of
branch and bound must cover all signs, and each must be proved, or be empty.

Floating point: a sum of n products, computed in any order with unit roundoff u, is off by at most n u / (1 - n u) of
the sum of their sizes (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). Twice that, with
some more for n, is taken; so the rounding of the bound itself and underflow are paid too. The network's own rounding is
paid by the same rule in its own type, unless the proof is of exact arithmetic, and says so. Not covered: products that
are not computed as sums of products (Winograd, Fourier, Strassen), and less precision than the type has (TF32).
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
U = 2.0**-53
UNITS = {"exact": 0.0, "float64": 2.0**-53, "float32": 2.0**-24}
TINY, HUGE = 2.0**-100, 1e30
"""The first is added to sizes, which pays for underflow; larger values than the second are refused."""
TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
KINDS = {"linear": 1, "conv": 1, "scale": 1, "relu": 1, "reshape": 1, "sum": 2}
"""The operations, with the number of their arguments."""
PARTS = ("weight", "shift")
LEAVES = {"form": "i8", "margin": "f8", "split": "i8", "pull": "f4"}
NETWORK = "network.safetensors"
CHUNK = 256
"""Rows that are carried back at once."""
Ends = dict[int, tuple[Array, Array]]
"""By place in the list of values: 0 is the input, k the result of the k-th operation. Arrays have one row a region."""
Shares = Mapping[int, Array]
"""Slopes of the lines below ReLUs, by place of the result."""


class Refused(ValueError):  # noqa: N818 -- it is an answer
    """A proof that does not hold, and why."""


def need(holds: Any, why: str) -> None:
    """Refuse unless it holds."""
    if not holds:
        raise Refused(why)


@dataclass(frozen=True)
class Node:
    """weight . x + shift, or max(x, 0)."""

    kind: str
    of: tuple[int, ...]
    shape: tuple[int, ...]
    weight: Array
    shift: Array
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    terms: int
    """Products that are added up for one value; 0 where nothing is computed."""


@dataclass(frozen=True)
class Network:
    """The list of operations; the last gives the logits."""

    nodes: tuple[Node, ...]
    shape: tuple[int, ...]
    sha256: str

    def shape_of(self, place: int) -> tuple[int, ...]:
        """Of one value."""
        return self.nodes[place - 1].shape if place else self.shape

    @property
    def longest(self) -> int:
        """An upper bound of the number of terms in any sum over coefficients, and of such sums in a row."""
        return max(math.prod(self.shape_of(k)) for k in range(len(self.nodes) + 1)) + 2 * len(self.nodes) + 16


@dataclass(frozen=True)
class Bounds:
    """What is known over the regions, one row each."""

    ends: Ends
    sizes: dict[int, Array]
    """By place: what the terms of a sum add up to at most, without their signs."""
    unit: float


def parsed(text: bytes | str) -> Any:
    """JSON in which no name comes twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len({key for key, _ in pairs}) == len(pairs), "a name comes twice in the JSON")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once, parse_constant=lambda text: need(False, f"{text} in the JSON"))


def read(data: bytes, form: str) -> tuple[Any, dict[str, Array]]:
    """What a file of safetensors says of itself, and its arrays: without gaps, finite, of three types."""
    size = int.from_bytes(data[:8], "little")
    need(8 + size <= len(data), "the file is cut off")
    header, body, arrays, end = parsed(data[8 : 8 + size]), data[8 + size :], dict[str, Array](), 0
    about = parsed(header.pop("__metadata__")["caveat"])
    need(about["format"] == form, f"it is no {form}")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, stop), kind = entry["data_offsets"], np.dtype(TYPES[entry["dtype"]])
        need(start == end and stop - start == math.prod(entry["shape"]) * kind.itemsize, f"{name}: offsets are wrong")
        need(stop <= len(body), "the file is cut off")
        arrays[name] = np.frombuffer(body[start:stop], kind).reshape(entry["shape"])
        need(np.isfinite(arrays[name]).all(), f"{name}: NaN or infinity")
        end = stop
    need(end == len(body), "the file goes on after its end")
    return about, arrays


def network(data: bytes) -> Network:
    """The list of operations in the bytes of `network.safetensors`."""
    about, arrays = read(data, "caveat network 1")
    nodes, shapes = list[Node](), [tuple[int, ...](about["shape"])]
    for k, entry in enumerate(about["nodes"], 1):
        kind, of, shape = entry["kind"], tuple(entry["of"]), tuple[int, ...](entry["shape"])
        need(len(of) == KINDS[kind] and all(0 <= place < k for place in of), f"operation {k}: arguments are wrong")
        plain = kind in ("relu", "reshape")
        weight, shift = (np.zeros(()) if plain else arrays.pop(f"{k}.{part}").astype(float) for part in PARTS)
        terms = 0 if plain else {"scale": 1, "sum": 2}.get(kind) or weight[0].size
        node = Node(kind, of, shape, weight, shift, tuple(entry["stride"]), tuple(entry["padding"]), terms)
        need(all(type(step) is int and step > 0 for step in node.stride), f"operation {k}: strides are wrong")
        found = np.shape(applied(node, [np.zeros((1, *shapes[place])) for place in of], np.abs) + shift)
        same = kind not in ("relu", "scale", "sum") or all(shapes[place] == shape for place in of)
        need(found == (1, *shape) and same, f"operation {k}: shape {found[1:]} in place of {shape}")
        need(kind != "linear" or len(shape) == 1, f"operation {k}: a linear map of more than one axis")
        need(8 * terms * UNITS["float32"] < 1, f"operation {k}: too many terms in a sum")
        nodes.append(node)
        shapes.append(shape)
    need(nodes and not arrays and len(shapes[-1]) == 1, "arrays of no operation, or no logits")
    return Network(tuple(nodes), shapes[0], hashlib.sha256(data).hexdigest())


def plus(weight: Array) -> Any:
    """Its positive part."""
    return np.maximum(weight, 0)


def minus(weight: Array) -> Any:
    """Its negative part."""
    return np.minimum(weight, 0)


def applied(node: Node, x: Sequence[Array], part: Callable[[Array], Any]) -> Array:
    """A part of the weight . x, without the shift."""
    weight = part(node.weight)
    if node.kind == "linear":
        return x[0] @ weight.T
    if node.kind == "conv":
        axes = tuple(range(2, weight.ndim))
        padded = np.pad(x[0], [(0, 0), (0, 0), *((width, width) for width in node.padding)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axes)
        windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in node.stride))]
        found = np.tensordot(windows, weight, ((1, *(axis + len(axes) for axis in axes)), (1, *axes)))
        return np.moveaxis(found, -1, 1)
    if node.kind == "scale":
        return x[0] * weight
    if node.kind == "sum":
        return x[0] * weight[0] + x[1] * weight[1]
    return x[0].reshape(-1, *node.shape) * part(np.ones(()))


def carried(node: Node, rows: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Coefficients of the result to those of the arguments: rows . weight."""
    if node.kind == "linear":
        return [rows @ node.weight]
    if node.kind == "conv":
        weight, size = node.weight, [s + 2 * p for s, p in zip(shapes[0][1:], node.padding, strict=True)]
        back = np.zeros((len(rows), shapes[0][0], *size))
        for offset in np.ndindex(weight.shape[2:]):
            place = (
                slice(o, o + step * n, step) for o, step, n in zip(offset, node.stride, rows.shape[2:], strict=True)
            )
            part = np.tensordot(rows, weight[(slice(None), slice(None), *offset)], (1, 0))
            back[(slice(None), slice(None), *place)] += np.moveaxis(part, -1, 1)
        inner = (slice(p, p + s) for s, p in zip(shapes[0][1:], node.padding, strict=True))
        return [back[(slice(None), slice(None), *inner)]]
    if node.kind == "scale":
        return [rows * node.weight]
    if node.kind == "sum":
        return [rows * node.weight[0], rows * node.weight[1]]
    return [rows.reshape(-1, *shapes[0])]


def dot(rows: Array, values: Array) -> Array:
    """Every row times the values of its region, or of the only one."""
    flat = values.reshape(len(values), -1)
    return rows.reshape(len(rows), -1) @ flat[0] if len(flat) == 1 else (rows * values).reshape(len(rows), -1).sum(1)


def bounded(net: Network, box: tuple[Array, Array], unit: float, refined: Callable[..., tuple[Array, Array]]) -> Bounds:
    """Intervals of all values, rounded outward; `refined(bounds, k, low, high)` says more of arguments of ReLUs."""
    known = Bounds({0: box}, {}, unit)
    for k, node in enumerate(net.nodes, 1):
        ends = [known.ends[place] for place in node.of]
        if node.kind == "relu":
            (place,) = node.of
            low, high = known.ends[place] = refined(known, k, *ends[0])
            known.ends[k] = np.maximum(low, 0), np.maximum(high, 0)
            continue
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        size = applied(node, [np.maximum(abs(low), abs(high)) for low, high in ends], np.abs) + abs(node.shift)
        need((size < HUGE).all(), f"operation {k}: values of more than {HUGE:g}")
        error = node.terms and 2 * ((node.terms + 2) * unit + (2 * node.terms + 8) * U) * (size + TINY)
        low = applied(node, lows, plus) + applied(node, highs, minus) + node.shift - error
        high = applied(node, highs, plus) + applied(node, lows, minus) + node.shift + error
        known.ends[k], known.sizes[k] = (low, high), size
    return known


def lowest(
    net: Network, known: Bounds, place: int, rows: Array, slopes: Shares | None, pull: Shares | None = None
) -> Array:
    """Lower bounds of rows . value at a place; with slopes of the lines below ReLUs by back-substitution to the input.

    Before the first ReLU on the way intervals are tried too. `pull` is added to coefficients of arguments of ReLUs.
    """
    waiting, total, own = {place: rows}, np.zeros(len(rows)), np.zeros(len(rows))
    size, best = np.zeros(len(rows)), np.full(len(rows), -np.inf)

    def over(ends: Mapping[int, Array]) -> Array:
        """The least over the intervals of what is waiting, with all errors."""
        least, sizes = total - own, size
        for at, row in ends.items():
            low, high = known.ends[at]
            least = least + dot(plus(row), low) + dot(minus(row), high)
            sizes = sizes + dot(abs(row), np.maximum(abs(low), abs(high)))
        return least - 2 * net.longest * U * (sizes + TINY)

    for k in range(place, 0, -1):
        if k not in waiting:
            continue
        node = net.nodes[k - 1]
        if node.kind == "relu" and np.isneginf(best).all():
            best = over(waiting)
            if slopes is None:
                return best
        row = waiting.pop(k)
        if node.kind == "relu" and slopes is not None:
            low, high = known.ends[node.of[0]]
            line, chord, offset = lines(low, high, slopes[k])
            size = size + dot(abs(row), np.maximum(abs(low), abs(high)) + offset)
            total = total + dot(minus(row), offset)
            parts = [np.where(row > 0, row * line, row * chord)]
            if pull is not None and node.of[0] in pull:
                parts[0] = parts[0] + pull[node.of[0]]
                size = size + dot(abs(pull[node.of[0]]), np.maximum(abs(low), abs(high)))
        else:
            parts = carried(node, row, [net.shape_of(at) for at in node.of])
            sizes = dot(abs(row), known.sizes[k] + TINY)
            total, size = total + dot(row, np.broadcast_to(node.shift, (1, *node.shape))), size + sizes
            own = own + (node.terms and 2 * (node.terms + 2) * known.unit * sizes)
        for at, part in zip(node.of, parts, strict=True):
            waiting[at] = waiting[at] + part if at in waiting else part
    return np.maximum(best, over(waiting))


def lines(low: Array, high: Array, slopes: Array) -> tuple[Array, Array, Array]:
    """slope x <= max(x, 0) <= chord x + offset on the interval: the offset is rounded up so that both ends hold."""
    across = (low < 0) & (high > 0)
    known = (low >= 0).astype(float)
    chord = np.where(across, high / np.where(across, high - low, 1), known)
    offset = np.maximum(-chord * low, high - chord * high) + 4 * U * (high - low)
    return np.where(across, slopes, known), chord, np.where(across, offset, 0)


def checked(data: bytes, net: Network) -> dict[str, Any]:
    """What an accepted proof says of itself, and the SHA-256 of its input's values.

    Raises
    ------
    Refused
        If it does not hold; a file that is no proof may raise any other error.
    """
    about, arrays = read(data, "caveat proof 1")
    need(about["network"] == net.sha256, "it is of another network")
    need(about["rounding"] in UNITS, f"rounding: expected one of {', '.join(UNITS)}, got {about['rounding']!r}")
    unit, x = UNITS[about["rounding"]], arrays.pop("input")
    need(x.shape == net.shape and (unit == 0 or unit == UNITS["float32" if x.dtype == "f4" else "float64"]),
         "the input's shape or type is not the network's")  # fmt: skip
    known = bounded(
        net, ball(x, about["radius"], about["clip"], unit), unit, lambda *given: implied(net, arrays, *given)
    )
    label, classes = about["label"], net.nodes[-1].shape[0]
    need(type(label) is int and 0 <= label < classes, "the label is no class")
    forms, margins, splits, pulls = (taken(arrays, f"leaf.{name}", kind) for name, kind in LEAVES.items())
    need(forms.ndim == 1 and margins.shape == forms.shape and splits.shape == (len(pulls), 4), "leaf: shapes differ")
    need((pulls >= 0).all(), "leaf.pull: a multiplier is below 0")
    shares = slopes(net, arrays, len(net.nodes) + 1, len(forms))
    need(not arrays, f"{min(arrays, default='')}: what is it?")
    leaves = [dict[tuple[int, int], int]() for _ in forms]
    for leaf, k, value, sign in splits.tolist():
        need(0 <= leaf < len(leaves) and k > 0 and net.nodes[k - 1].kind == "relu", "leaf.split: no such leaf or ReLU")
        need(0 <= value < math.prod(net.shape_of(k)) and sign in (-1, 1), "leaf.split: no such value or sign")
        need((k, value) not in leaves[leaf], "leaf.split: two signs of one value")
        leaves[leaf][k, value] = sign
    for form in set(range(classes)) - {label}:
        mine = [split for split, other in zip(leaves, forms, strict=True) if other == form]
        need(cover(mine), f"class {form}: the leaves do not cover every sign")
    for start in range(0, len(forms), CHUNK):
        part = slice(start, start + CHUNK)
        rows = np.eye(classes)[label] - np.eye(classes)[forms[part]]
        mine = (splits[:, 0] >= start) & (splits[:, 0] < start + CHUNK)
        share = shares and {k: value if len(value) == 1 else value[part] for k, value in shares.items()}
        found = leaf_bounds(net, known, rows, splits[mine] - [start, 0, 0, 0], pulls[mine], share)
        need(((found >= margins[part]) & (margins[part] > 0)).all(), "a margin does not follow")
    return about | {"sha256": hashlib.sha256(x.tobytes()).hexdigest()}


def taken(arrays: dict[str, Array], name: str, kind: str) -> Array:
    """An array of a type."""
    need(arrays[name].dtype == kind, f"{name}: its type is {arrays[name].dtype}")
    return arrays.pop(name)


def ball(x: Array, radius: float, clip: Sequence[float | None], unit: float) -> tuple[Array, Array]:
    """What lies within the radius and the valid values, widened by a rounding of points at its edge."""
    x = x.astype(float)[None]
    least, most = (end if limit is None else limit for end, limit in zip((-HUGE, HUGE), clip, strict=True))
    need(radius >= 0 and least <= most and (abs(x) + radius < HUGE / 2).all(), "input, radius or range of values")
    wider = radius + (2 * unit + 8 * U) * (abs(x) + radius)
    return np.maximum(x - wider, np.minimum(x, least)), np.minimum(x + wider, np.maximum(x, most))


def slopes(net: Network, arrays: dict[str, Array], target: int, most: int) -> dict[int, Array] | None:
    """Slopes in [0, 1] for all ReLUs before the target, with one row or `most` (0: any number) each; or None at all."""
    before = [k for k in range(1, target) if net.nodes[k - 1].kind == "relu"]
    if f"slope.{target}.{before[0] if before else 0}" not in arrays:
        return None
    found = {k: taken(arrays, f"slope.{target}.{k}", "f4").astype(float) for k in before}
    counts = {len(value) for value in found.values()}
    need(len(counts) == 1 and (not most or counts <= {1, most}), f"slope.{target}: the number of rows is wrong")
    for k, value in found.items():
        need(value.shape[1:] == net.shape_of(k), f"slope.{target}.{k}: its shape")
        need(((value >= 0) & (value <= 1)).all(), f"slope.{target}.{k}: a slope outside of [0, 1]")
    return found


def implied(
    net: Network, arrays: dict[str, Array], known: Bounds, k: int, low: Array, high: Array
) -> tuple[Array, Array]:
    """The claimed bounds of a ReLU's argument, where they follow: from intervals, or by one of the sets of slopes."""
    place, shares, ends = net.nodes[k - 1].of[0], slopes(net, arrays, k, 0), list[Array]()
    for sign, end in ((1.0, low), (-1.0, -high)):
        claim = sign * taken(arrays, f"{'low' if sign > 0 else 'high'}.{k}", "f8")
        need(claim.shape == low.shape[1:], f"bounds of {k}: their shape")
        left = np.flatnonzero(~(claim <= end[0]))
        for each in range(len(next(iter(shares.values()))) if shares else 0):
            share = shares and {at: value[each : each + 1] for at, value in shares.items()}
            left = left[~(single(net, known, place, left, sign, share) >= claim.flat[left])]
        need(not left.size, f"operation {k}: {left.size} claimed bounds of its argument do not follow")
        ends.append(np.maximum(end, claim))
    return ends[0], -ends[1]


def single(net: Network, known: Bounds, place: int, which: Array, sign: float, share: Shares | None) -> Array:
    """Lower bounds of some of the values of a place, or of minus them."""
    found = [np.zeros(0)]
    for part in (which[start : start + CHUNK] for start in range(0, len(which), CHUNK)):
        rows = np.zeros((len(part), math.prod(net.shape_of(place))))
        rows[range(len(part)), part] = sign
        found.append(lowest(net, known, place, rows.reshape(-1, *net.shape_of(place)), share))
    return np.concatenate(found)


def cover(leaves: list[dict[tuple[int, int], int]]) -> bool:
    """Whether every choice of signs is in one of the leaves, by walking down the tree that they come from."""
    waiting = [leaves]
    while waiting:
        some = waiting.pop()
        if any(not leaf for leaf in some):
            continue
        shared = set(some[0]).intersection(*some) if some else set[tuple[int, int]]()
        if not shared:
            return False
        key = min(shared)
        rest = [({k: v for k, v in leaf.items() if k != key}, leaf[key]) for leaf in some]
        waiting += [[leaf for leaf, sign in rest if sign == side] for side in (-1, 1)]
    return True


def leaf_bounds(net: Network, root: Bounds, rows: Array, splits: Array, pulls: Array, share: Shares | None) -> Array:
    """A lower bound of every row over its leaf, where signs of some ReLUs' arguments are given; infinite if empty."""
    signs = {k: np.zeros((len(rows), *net.shape_of(k))) for k in set(splits[:, 1].tolist())}
    pull = {net.nodes[k - 1].of[0]: np.zeros_like(sign) for k, sign in signs.items()}
    for (leaf, k, value, sign), weight in zip(splits.tolist(), pulls.tolist(), strict=True):
        signs[k][leaf].flat[value] = sign
        pull[net.nodes[k - 1].of[0]][leaf].flat[value] = -sign * weight
    empty = np.zeros(len(rows), bool)

    def split(known: Bounds, k: int, low: Array, high: Array) -> tuple[Array, Array]:
        del known
        before, sign = root.ends[net.nodes[k - 1].of[0]], signs.get(k, np.zeros(()))
        low, high = np.maximum(low, before[0]), np.minimum(high, before[1])
        low, high = np.where(sign > 0, np.maximum(low, 0), low), np.where(sign < 0, np.minimum(high, 0), high)
        np.logical_or(empty, (low > high).reshape(len(low), -1).any(1), out=empty)
        return low, high

    known = bounded(net, root.ends[0], root.unit, split)
    return np.where(empty, np.inf, lowest(net, known, len(net.nodes), rows, share, pull))


def main(arguments: list[str]) -> int:
    """Check files or folders of proofs; 0 if all are accepted, 1 if one is not, 2 if there is none."""
    given = [file for path in map(Path, arguments) for file in (sorted(path.glob("*.safetensors")) or [path])]
    files, nets, seen, refused = [file for file in given if file.name != NETWORK], dict[Path, Network](), set[str](), 0
    lost = next((file for file in files if not file.is_file()), None)
    if not files or lost:
        what = f"{lost} is no proof, and no folder of proofs" if lost else "no proof is there"
        print(
            f"{what if given else 'no folder is named'}; usage: python -m caveat.bounds.checker FOLDER, where caveat "
            f"certify --proof FOLDER has written {NETWORK} and a file NUMBER.safetensors for each proof"
        )
        return 2
    for file in files:
        name = file.name.encode("unicode_escape").decode()  # a line break in it would forge a line of ours
        try:
            with np.errstate(all="ignore"):  # what comes of it is not above anything
                if not (file.parent / NETWORK).is_file():
                    raise Refused(f"there is no {NETWORK} beside it, of which it would be a proof")
                if file.parent not in nets:
                    nets[file.parent] = network((file.parent / NETWORK).read_bytes())
                    print(f"network sha256 {nets[file.parent].sha256}")
                data = file.read_bytes()
                about = checked(data, nets[file.parent])
            if (same := hashlib.sha256(data).hexdigest()) in seen:
                print(f"repeated {name}: it is the same proof as another, and is not counted")
                continue
            seen.add(same)
            shown = "accepted {}: label {label}, radius {radius} in {clip}, {rounding}, input sha256 {sha256}"
            print(shown.format(name, **about))
        except Exception as error:  # whatever goes wrong, nothing is proved
            refused += 1
            print(f"refused {name}: {error if isinstance(error, Refused) else f'it is no proof ({error!r})'}")
    print(f"{len(seen)} accepted, {refused} refused")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
