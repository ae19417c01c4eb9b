"""Mean squared error: the network answers with the label's mean and nothing else."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.objectives._outputs import outputs_for

__all__ = ["mean_squared_error"]


def mean_squared_error(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Mean squared error, least where the output is the label's mean.

    A network that is trained so tells nothing of its uncertainty: an ensemble of several tells what they do not agree
    on, conformal intervals how far off it is on average. Nothing is drawn from the generator.

    Formula: (y - μ)².

    Source: T. Gneiting, Making and evaluating point forecasts, JASA 2011, table 1.

    Raises
    ------
    ModelError
        If the outputs are not `(n, 1)`.
    DataError
        If the labels are no real numbers `(n,)`.

    Example
    -------
    >>> outputs, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])
    >>> mean_squared_error(nn.Identity(), outputs, labels, torch.Generator()).item()
    2.0
    """
    del generator
    return (labels - outputs_for(model, inputs, labels, what="the prediction", count=1)[:, 0]).square().mean()
