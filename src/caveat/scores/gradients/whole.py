"""Statistics of many inputs, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat import evaluation
from caveat.calls import recorded
from caveat.errors import DataError, OptionError
from caveat.scores.gradients.moments import STATISTICS
from caveat.scores.gradients.probes import Target, probe
from caveat.types import Labels, Look

__all__ = ["LayerStatistics", "expected_length", "looks", "not_empty", "statistics"]


@dataclass(frozen=True)
class LayerStatistics:
    """Seven numbers for every sample and layer."""

    values: Float[Tensor, "n l 7"]
    layers: tuple[str, ...]
    """The last is `all`: all parameters together."""
    statistics: tuple[str, ...] = STATISTICS

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.values)


def statistics(
    model: nn.Module,
    inputs: Tensor,
    *,
    target: Target | Labels = "predicted",
    biases: bool = True,
    batch_size: int = 256,
) -> LayerStatistics:
    """Statistics of each sample's gradient of the loss by the parameters: per layer and over all.

    One batched forward and one batched backward pass to the layers' outputs; what is left is arithmetic (linear layers
    in closed form). Layers without a rule take a backward pass for every sample; one warning names them.

    g = d(-log p_y)/dw with y the predicted class, a given label, or averaged over all classes (`uniform`); over the k
    entries of a layer's weight and bias together (without the bias if not `biases`): sum |g|, sqrt(sum g^2), min g,
    max g, mean m, m3 / m2^1.5, m4 / m2^2 with central moments. Large norms mean little trust; skewness and kurtosis
    have no direction. Where p_y rounds to 1, skewness and kurtosis are their limits; of a gradient whose entries are
    all equal (or 0) both are 0. A shared parameter counts once, in the first layer that holds it. Frozen parameters
    count as others do.

    Raises
    ------
    ModelError
        If the model gives no logits `(n, c)`, has no parameters, or is in training mode.
    DataError
        If there are no inputs, or labels do not fit.
    OptionError
        If an option is out of range.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 2; `uniform`: Huang et al., NeurIPS 2021 (arXiv 2110.00218).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))  # p = (1/2, 1/2), so g = (-1/2, 1/2) x (1, 1)
    >>> found = statistics(model.eval(), torch.ones(1, 2))
    >>> [round(value, 3) for value in found.values[0, -1].tolist()]
    [2.0, 1.0, -0.5, 0.5, 0.0, 0.0, 1.0]
    """
    not_empty(inputs)
    labels = None if isinstance(target, str) else target
    if labels is not None and (labels.shape != inputs.shape[:1] or labels.is_floating_point()):
        raise DataError(f"target: expected {len(inputs)} integer labels, got {labels.dtype} of {tuple(labels.shape)}")
    made = probe(model, inputs, target=target if isinstance(target, str) else "predicted", biases=biases)
    rows: list[Tensor] = []
    for start, look in looks(model, inputs, layers=made.layers, graph=True, batch_size=batch_size):
        if labels is None:
            rows.append(made(look).unflatten(1, (-1, len(STATISTICS))))
            continue
        part = labels[start : start + batch_size].to(look.logits.device).long()
        classes = look.logits.shape[1]
        if part.min() < 0 or part.max() >= classes:
            raise DataError(f"target: expected labels in [0, {classes}), got {int(part.min())} to {int(part.max())}")
        rows.append(made.at(look, part))
    return LayerStatistics(torch.cat(rows), made.reported)


def expected_length(
    model: nn.Module, inputs: Tensor, *, biases: bool = True, batch_size: int = 256
) -> Float[Tensor, "n l"]:
    """The gradient's Euclidean norm to be expected if the label is drawn from the model's own answer.

    Per layer and, last, over all; sum_y p_y ||d(-log p_y)/dw||_2. A backward pass for every class. Large means that
    the sample would change the network most: little trust.

    Raises
    ------
    ModelError, DataError, OptionError
        As `statistics`.

    Source: Settles, Craven and Ray, Multiple-Instance Active Learning, NeurIPS 2007, section 3.2 (expected gradient
    length).
    """
    not_empty(inputs)
    made = probe(model, inputs, biases=biases)
    rows: list[Tensor] = []
    for _, look in looks(model, inputs, layers=made.layers, graph=True, batch_size=batch_size):
        probs = look.logits.detach().double().softmax(dim=1).to(look.logits.dtype)
        length = STATISTICS.index("l2")
        each = [made.at(look, torch.full_like(p, y, dtype=torch.long))[..., length] for y, p in enumerate(probs.T)]
        rows.append(torch.einsum("nc,cnl->nl", probs.to(each[0].dtype), torch.stack(each)))
    return torch.cat(rows)


def looks(
    model: nn.Module, inputs: Tensor, *, layers: Sequence[str], graph: bool, batch_size: int
) -> Iterator[tuple[int, Look]]:
    """Batch by batch, the position of its first sample and the pass over it."""
    if batch_size < 1:
        raise OptionError(f"batch_size: expected at least 1, got {batch_size}")
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size].detach()
        with evaluation.with_gradients() if graph else evaluation.without_gradients():
            if graph:
                # with frozen weights the graph starts here
                batch = batch.clone().requires_grad_(batch.is_floating_point())
            with recorded(model, layers) as calls:
                logits = model(batch.clone())  # a network may write into its inputs
        yield start, Look(model, batch, logits, {}, calls)


def not_empty(inputs: Tensor) -> None:
    """Refuse an empty set."""
    if not len(inputs):
        raise DataError("inputs: expected at least one sample, got an empty set")
