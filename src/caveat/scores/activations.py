"""How large and how uneven the outputs of each layer are: the seven statistics of gradients, of activations.

For meta classification: no single one of them has a direction in which trust falls.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat import evaluation
from caveat.batches import Inputs
from caveat.calls import recorded
from caveat.errors import ModelError
from caveat.scores.gradients import moments
from caveat.scores.gradients.whole import LayerStatistics, looks, not_empty
from caveat.types import Look

__all__ = ["ActivationProbe", "probe", "statistics"]


@dataclass(frozen=True)
class ActivationProbe:
    """A probe: seven statistics of the outputs of every layer, and of all outputs together."""

    layers: tuple[str, ...]
    reported: tuple[str, ...]
    """Layers in the order of the numbers; the last is `all`."""
    graph: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What each number is: `layer/statistic`."""
        return moments.columns(self.reported)

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """A pass over each output."""
        n = len(look.logits)
        with torch.no_grad():
            layers = [
                [moments.of_rows(call.output.detach().reshape(n, -1)) for call in look.calls[name]]
                for name in self.layers
            ]
            values = moments.by_layer(layers, rounding=torch.finfo(look.logits.dtype).eps)
        return values.to(torch.promote_types(look.logits.dtype, torch.float32)).flatten(1)


def probe(model: nn.Module, inputs: Inputs) -> ActivationProbe:
    """The probe for all layers with parameters of their own whose output is a tensor of numbers, sample by sample.

    Found by one forward pass over the first two of `inputs`.

    Raises
    ------
    ModelError
        If there is no such layer, or the model is in training mode.
    """
    evaluation.check(model)
    own = [
        name
        for name, layer in model.named_modules()
        if name and next(layer.parameters(recurse=False), None) is not None
    ]
    few = inputs[:2]
    with torch.no_grad(), recorded(model, own) as calls:
        model(few)

    def usable(output: object) -> bool:
        return isinstance(output, Tensor) and output.is_floating_point() and len(output) % len(few) == 0

    layers = tuple(name for name, made in calls.items() if made and all(usable(call.output) for call in made))
    if not layers:
        raise ModelError("model: expected layers with parameters whose outputs are tensors, found none")
    return ActivationProbe(layers, (*layers, "all"))


def statistics(model: nn.Module, inputs: Tensor, *, batch_size: int = 256) -> LayerStatistics:
    """Statistics of the outputs of all layers with parameters, per sample; one forward pass.

    Over the k outputs a of a layer (of all its calls, if it is shared): sum |a|, sqrt(sum a^2), min a, max a, mean m,
    m3 / m2^1.5, m4 / m2^2 with central moments; outputs that are all equal have skewness and kurtosis 0. They are taken
    as the pass leaves them: after the activation function, if that works in place.

    Raises
    ------
    ModelError
        If no layer with parameters gives a tensor, or the model is in training mode.
    DataError
        If there are no inputs.
    OptionError
        If `batch_size` is not positive.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 5 (outlook).

    >>> found = statistics(nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(2, 2)).eval(), torch.ones(3, 2))
    >>> found.layers, tuple(found.values.shape)
    (('2', 'all'), (3, 2, 7))
    """
    not_empty(inputs)
    made = probe(model, inputs)
    passes = looks(model, inputs, layers=made.layers, graph=False, batch_size=batch_size)
    rows = [made(look).unflatten(1, (-1, len(moments.STATISTICS))) for _, look in passes]
    return LayerStatistics(torch.cat(rows), made.reported)
