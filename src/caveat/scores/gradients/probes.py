"""Statistics of gradients, layer by layer, taken from the forward pass that all scores share."""

from dataclasses import dataclass
from typing import Literal
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat import evaluation
from caveat.batches import Inputs
from caveat.errors import CaveatWarning, ModelError, OptionError
from caveat.scores.gradients import moments, plan, slow, targets
from caveat.scores.gradients.moments import Sums
from caveat.types import Labels, Look

__all__ = ["GradientProbe", "Target", "probe"]

Target = Literal["predicted", "uniform"]
SLOW_BUDGET = 2**26
"""Bytes of gradients that the way without rules holds at once."""


@dataclass(frozen=True)
class GradientProbe:
    """A probe: for every layer and for all together, seven statistics of each sample's gradient."""

    layers: tuple[str, ...]
    """Those that are watched."""
    reported: tuple[str, ...]
    """Layers in the order of the numbers; the last is `all`."""
    slow: tuple[str, ...]
    """Parameters without a rule."""
    target: Target
    biases: bool
    graph: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """What each number is: `layer/statistic`."""
        return moments.columns(self.reported)

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """One backward pass to the outputs of all layers."""
        logits = look.logits.detach()
        made = targets.of_uniform(logits) if self.target == "uniform" else targets.of_label(logits, logits.argmax(1))
        return self.towards(look, *made).flatten(1)

    def at(self, look: Look, labels: Labels) -> Float[Tensor, "n l 7"]:
        """The same for given labels."""
        return self.towards(look, *targets.of_label(look.logits.detach(), labels))

    def towards(
        self, look: Look, directions: Float[Tensor, "n c"], factor: Float[Tensor, " n"]
    ) -> Float[Tensor, "n l 7"]:
        """For the gradient `factor * directions` at the logits."""
        logits = look.logits
        directions = directions.to(logits.dtype)
        found = plan.pairs(look.calls, logits, directions, self.layers)
        held = plan.sources(look.model, biases=self.biases)
        with torch.no_grad():
            sums = {
                name: plan.by_rule(own, found, count=len(logits), budget=_budget(logits.device))
                for name, own in held.items()
                if name not in self.slow
            }
            sums |= self._slowly(look, directions)
            layers = [[sums[name] for name in names] for names in plan.grouped(list(held)).values()]
            values = moments.by_layer(layers, rounding=torch.finfo(logits.dtype).eps)
            values[..., :5] *= factor.view(-1, 1, 1)
        return values.to(torch.promote_types(logits.dtype, torch.float32))

    def _slowly(self, look: Look, directions: Float[Tensor, "n c"]) -> dict[str, Sums]:
        if not self.slow:
            return {}
        chunks = slow.gradients(look.model, self.slow, look.inputs, directions, budget=SLOW_BUDGET)
        rows = [{name: moments.of_rows(g.flatten(1)) for name, g in chunk.items()} for chunk in chunks]
        return {name: torch.cat([chunk[name] for chunk in rows]) for name in self.slow}


def probe(model: nn.Module, inputs: Inputs, *, target: Target = "predicted", biases: bool = True) -> GradientProbe:
    """Find out, on the first two of `inputs`, which parameters of `model` have a rule; a warning names the others.

    The statistics of the others take a backward pass for every sample. Options as for `statistics`.

    Raises
    ------
    ModelError
        If the model gives no logits `(n, c)`, has no parameters, or is in training mode.
    OptionError
        If `target` is not one of the two.
    """
    if target not in ("predicted", "uniform"):
        raise OptionError(f"target: expected 'predicted', 'uniform' or labels, got {target!r}")
    evaluation.check(model)
    held = plan.sources(model, biases=biases)
    if not held:
        raise ModelError(
            "model: expected parameters to differentiate by, found none (weights that are quantised, or frozen into "
            "code, are none)"
        )
    without = plan.without_rule(model, inputs[:2].detach(), held)
    if without:
        named = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        warn(f"gradients: no rule for {named}; slower, one backward pass a sample", CaveatWarning, stacklevel=2)
    watched = dict.fromkeys(layer for name, own in held.items() if name not in without for layer, _, _ in own)
    reported = (*plan.grouped(list(held)), "all")
    return GradientProbe(tuple(watched), reported, tuple(without), target, biases)


def _budget(device: torch.device) -> int:
    """Bytes that the blocks take: what fits the second-level caches, or on other devices what keeps them busy."""
    return 2**20 * torch.get_num_threads() if device.type == "cpu" else 2**28
