"""Neuron coverage: which states of its neurons a set of inputs brings a network into, counted in one pass.

Proposed as a measure of how well a set tests a network. What it says beside the set's size and the network's confidence
is a question of its own: `caveat study neuron-coverage` asks it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caveat import evaluation
from caveat.batches import Data, Inputs
from caveat.calls import check_watchable, recorded
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import check, moved, opened
from caveat.scores.pooled import mean

__all__ = ["Coverage", "Criteria", "Ranges", "Shares", "coverage", "layers_of", "ranges"]

_PASSIVE = (nn.Flatten, nn.Dropout, nn.Identity, nn.Softmax, nn.LogSoftmax)
CRITERIA = ("nc", "kmnc", "nbc", "snac", "tknc")


@dataclass(frozen=True)
class Ranges:
    """The smallest and largest value of each neuron over a set, by layer: its range of everyday use."""

    low: Mapping[str, Float[Tensor, " k"]]
    high: Mapping[str, Float[Tensor, " k"]]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names, in the order of the network."""
        return tuple(self.low)


@dataclass(frozen=True)
class Criteria:
    """What is counted.

    Parameters
    ----------
    thresholds
        Of NC, on activations scaled to [0, 1] within each layer and input.
    sections
        K of KMNC: cells that each neuron's range is cut into.
    top
        K of TKNC: how many neurons of a layer are the most active for an input.
    """

    thresholds: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    sections: int = 1000
    top: int = 10

    def __post_init__(self) -> None:
        """Refuse what can't be counted."""
        if not self.thresholds or any(not 0 <= level < 1 for level in self.thresholds):
            raise OptionError(f"thresholds: expected numbers in [0, 1), got {self.thresholds}")
        if self.sections < 1 or self.top < 1:
            raise OptionError(f"sections, top: expected at least 1, got {self.sections} and {self.top}")


@dataclass(frozen=True)
class Shares:
    """Shares in [0, 1] of one layer, or of all; NaN where no neuron could be covered."""

    neurons: int
    nc: tuple[float, ...]
    """Neurons whose scaled activation was above each threshold for some input."""
    kmnc: float
    """Cells of the neurons' ranges that were met (of neurons that vary in the training set)."""
    nbc: float
    """Ends of ranges that some input lay beyond."""
    snac: float
    """Neurons that some input drove above their range."""
    tknc: float
    """Neurons that were among the most active of their layer for some input."""


@dataclass
class Coverage:
    """What was met so far: add more batches, or merge it with another's."""

    ranges: Ranges
    criteria: Criteria
    samples: int = 0
    above: dict[str, Bool[Tensor, "t k"]] = field(default_factory=dict)
    cells: dict[str, Bool[Tensor, "k s"]] = field(default_factory=dict)
    below_range: dict[str, Bool[Tensor, " k"]] = field(default_factory=dict)
    above_range: dict[str, Bool[Tensor, " k"]] = field(default_factory=dict)
    among_top: dict[str, Bool[Tensor, " k"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is met at first."""
        count = len(self.criteria.thresholds)
        for name, low in self.ranges.low.items():
            k = len(low)
            self.above.setdefault(name, torch.zeros(count, k, dtype=torch.bool))
            self.cells.setdefault(name, torch.zeros(k, self.criteria.sections, dtype=torch.bool))
            for store in (self.below_range, self.above_range, self.among_top):
                store.setdefault(name, torch.zeros(k, dtype=torch.bool))

    def add(self, activations: Mapping[str, Float[Tensor, "n k"]]) -> None:
        """Count one batch of neurons' values, by layer. Costs n k for each layer."""
        for name, found in activations.items():
            low, high = self.ranges.low[name], self.ranges.high[name]
            scaled = _scaled(found)
            for place, level in enumerate(self.criteria.thresholds):
                self.above[name][place] |= (scaled > level).any(dim=0)
            self._sections(name, found, low, high)
            self.below_range[name] |= (found < low).any(dim=0)
            self.above_range[name] |= (found > high).any(dim=0)
            top = found.topk(min(self.criteria.top, found.shape[1]), dim=1).indices
            self.among_top[name][top.unique()] = True
        self.samples += len(next(iter(activations.values()), ()))

    def _sections(self, name: str, found: Tensor, low: Tensor, high: Tensor) -> None:
        """Mark the cells of each neuron's range that its values lie in; those outside of it are none."""
        inside = (found >= low) & (found <= high) & (high > low)
        width = torch.where(high > low, high - low, torch.ones_like(high))
        cell = ((found - low) / width * self.criteria.sections).long().clamp(0, self.criteria.sections - 1)
        neuron = torch.arange(found.shape[1]).expand_as(cell)
        self.cells[name][neuron[inside], cell[inside]] = True

    def merged(self, other: "Coverage") -> "Coverage":
        """What both met together: that of the two sets as one.

        Raises
        ------
        OptionError
            If they were counted by other ranges or criteria.
        """
        same = self.criteria == other.criteria and self.ranges.layers == other.ranges.layers
        same = same and all(torch.equal(self.ranges.low[n], other.ranges.low[n]) for n in self.ranges.layers)
        if not same or any(not torch.equal(self.ranges.high[n], other.ranges.high[n]) for n in self.ranges.layers):
            raise OptionError("other: expected the coverage of the same ranges and criteria")
        parts = [
            {name: one | two[name] for name, one in first.items()}
            for first, two in (
                (self.above, other.above), (self.cells, other.cells), (self.below_range, other.below_range),
                (self.above_range, other.above_range), (self.among_top, other.among_top),
            )
        ]  # fmt: skip
        return Coverage(self.ranges, self.criteria, self.samples + other.samples, *parts)  # pyright: ignore[reportArgumentType]

    def of(self, layers: Sequence[str] | None = None) -> Shares:
        """The shares of these layers together, of all by default."""
        names = self.ranges.layers if layers is None else tuple(layers)
        low, high, below, over, top = (
            torch.cat([store[name] for name in names])
            for store in (self.ranges.low, self.ranges.high, self.below_range, self.above_range, self.among_top)
        )
        cells = torch.cat([self.cells[name] for name in names])[high > low]
        above = torch.cat([self.above[name] for name in names], dim=1)
        return Shares(
            len(low), tuple(above.double().mean(dim=1).tolist()),
            float(cells.double().mean()) if len(cells) else float("nan"),
            float(torch.cat([below, over]).double().mean()), float(over.double().mean()), float(top.double().mean()),
        )  # fmt: skip


def _scaled(found: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Each input's activations of a layer, from 0 (its least active neuron) to 1; 0 where all are alike."""
    low, high = found.amin(dim=1, keepdim=True), found.amax(dim=1, keepdim=True)
    return torch.where(high > low, (found - low) / torch.where(high > low, high - low, 1.0), torch.zeros_like(found))


def layers_of(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """The innermost layers whose outputs are `(n, k)`, `(n, t, k)` or `(n, k, h, w)`, but the logits.

    Raises
    ------
    ModelError
        If there is none.
    """
    check_watchable(model)
    names = [
        name for name, layer in model.named_modules()
        if name and not any(True for _ in layer.children()) and not isinstance(layer, _PASSIVE)
    ]  # fmt: skip
    with evaluation.without_gradients(), recorded(model, names) as calls:
        logits = model(moved(inputs.clone(), model))
    fitting: list[str] = []
    for name in names:
        output = calls[name][-1].output if calls.get(name) else None
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (2, 3, 4):
            continue
        if len(output) == len(inputs) and not (output.shape == logits.shape and torch.equal(output, logits)):
            fitting.append(name)
    if not fitting:
        raise ModelError("model: found no layer whose neurons could be looked at; name some with layers=[...]")
    return tuple(fitting)


def ranges(model: nn.Module, train: Data, *, layers: Sequence[str] | None = None) -> Ranges:
    """Each neuron's smallest and largest value over a set, one pass, constant memory.

    A neuron of a convolution is the mean of its map, of a transformer the mean over tokens.

    Raises
    ------
    DataError
        If the set is empty or holds NaN.
    ModelError
        If the model is in training mode, is scripted, or has no such layer.

    Source: K. Pei et al., DeepXplore, SOSP 2017 (neurons); L. Ma et al., DeepGauge, ASE 2018 (ranges).
    """
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    for batch in _passes(model, train, layers, "train"):
        for name, found in batch.items():
            least, most = found.aminmax(dim=0)
            low[name] = torch.minimum(low[name], least) if name in low else least
            high[name] = torch.maximum(high[name], most) if name in high else most
    return Ranges(low, high)


def coverage(
    model: nn.Module, batches: Data, known: Ranges, *, criteria: Criteria | None = None, name: str = "inputs"
) -> Coverage:
    """Count what a set brings the neurons into, given their ranges over the training set; one pass.

    Memory grows with neurons and sections, not with samples. Formulas: NC, neurons with (a - min) / (max - min) > t,
    min and max over the input's own layer; KMNC, cells of [low, high] that were met; NBC, (#{a < low} + #{a > high}) /
    2k; SNAC, #{a > high} / k; TKNC, neurons ever among the K largest of their layer.

    Raises
    ------
    DataError, ModelError
        As `ranges`.

    Source: K. Pei et al., DeepXplore, SOSP 2017 (NC); L. Ma et al., DeepGauge, ASE 2018, section 3 (the others).
    """
    found = Coverage(known, criteria or Criteria())
    for batch in _passes(model, batches, known.layers, name):
        found.add(batch)
    return found


def _passes(model: nn.Module, batches: Data, layers: Sequence[str] | None, name: str) -> Iterator[dict[str, Tensor]]:
    """The neurons of every batch, by layer, on the CPU."""
    evaluation.check(model)
    one = opened(batches, name)
    names = tuple(layers) if layers is not None else layers_of(model, one.first[0][:2])
    unknown = [layer for layer in names if layer not in dict(model.named_modules())]
    if unknown:
        raise ModelError(f"layers: the model has no layer {unknown[0]!r}")
    for number, batch in enumerate(one.batches):
        inputs, _ = check(batch, name)
        with evaluation.unchanged(model), evaluation.without_gradients(), recorded(model, names) as calls:
            model(moved(inputs.clone(), model))
        silent = [layer for layer in names if not calls.get(layer)]
        if silent:
            raise ModelError(f"model: its layer {silent[0]!r} was not called on batch {number} of {name}")
        found = {layer: mean(calls[layer][-1].output).detach().float().cpu() for layer in names}
        if not all(bool(torch.isfinite(part).all()) for part in found.values()):
            raise DataError(f"{name}: a neuron is NaN or infinite on batch {number}")
        yield found
