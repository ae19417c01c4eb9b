"""Laplace approximation of the last layer: how sharply the data pin its weights down."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat import evaluation, fitted
from caveat.calls import recorded
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import check_labels
from caveat.posteriors.layers import normal
from caveat.precision import all_finite
from caveat.types import Features, Head, Labels

__all__ = ["Laplace", "Probit", "Structure", "fit", "fit_regression"]

Structure = Literal["full", "kronecker", "diagonal"]
LIMIT = 6000
"""Most weights whose full covariance is formed: its eigenvectors take 300 MB."""


@dataclass(frozen=True)
class Laplace:
    """A Gaussian over weight and bias of a layer, as eigenvectors and standard deviations of its covariance."""

    layer: str
    mean: Float[Tensor, "c e"]
    """The trained weights, the bias as the last of e = d + 1 columns; without a bias e = d."""
    outputs: Float[Tensor, "a b"]
    """Kronecker: eigenvectors over the classes (c, c). Full: over all weights (ce, ce). Diagonal: empty."""
    inputs: Float[Tensor, "f g"]
    """Kronecker: eigenvectors over the features (e, e). Otherwise empty."""
    deviation: Float[Tensor, "c e"]
    """Standard deviation along each eigenvector (full: in their order, reshaped)."""
    prior_precision: float
    evidence: float
    """Log marginal likelihood of the data, in nats, up to a constant."""
    bias: bool
    """Whether the layer has one."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weight and bias of the layer, of one network."""
        moved = self.deviation * normal(self.deviation, generator)
        if self.inputs.numel():
            moved = self.outputs @ moved @ self.inputs.T
        elif self.outputs.numel():
            moved = (self.outputs @ moved.flatten()).reshape(self.mean.shape)
        weights = self.mean + moved
        before = f"{self.layer}." if self.layer else ""  # a network that is one layer
        if not self.bias:
            return {f"{before}weight": weights}
        return {f"{before}weight": weights[:, :-1], f"{before}bias": weights[:, -1]}

    def spread(self, features: Features) -> Float[Tensor, "n c"]:
        """Variance of each class's logit over the networks, for the inputs (n, d) of the layer; in float64."""
        inputs, deviation = features.double(), self.deviation.double()
        if self.bias:
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
        if self.inputs.numel():
            return (inputs @ self.inputs.double()).square() @ deviation.square().T @ self.outputs.double().square().T
        if not self.outputs.numel():
            return inputs.square() @ deviation.square().T
        variance = deviation.square().flatten()
        directions = self.outputs.unflatten(0, self.mean.shape)  # (c, e, c e)
        return torch.stack([(inputs @ own.double()).square() @ variance for own in directions], dim=1)


class Probit(nn.Module):
    """The network with the answer of its last layer's posterior in closed form, to be audited like any network.

    One pass, no draws and no noise of them; what is lost is the split into aleatoric and epistemic uncertainty. Often
    calibrated better than many draws, whose mean is pulled towards 1/c. Formula: softmax(z_k / sqrt(1 + pi s_k / 8)),
    s_k the variance of the k-th logit (`Laplace.spread`).

    Parameters
    ----------
    model
        The trained network, in evaluation mode.
    posterior
        What `fit` gave for its last layer; variances in the order of the logits.

    Raises
    ------
    ModelError
        In a pass, if the layer was not called once with inputs (n, d), or the network gives something else than what
        the layer does: then its logits are not those whose variance is known.

    Source: Daxberger et al., Laplace Redux, NeurIPS 2021 (arXiv 2106.14806), section 2 (the probit approximation); D.
    MacKay, The evidence framework applied to classification networks, Neural Computation 1992.
    """

    def __init__(self, model: nn.Module, posterior: Laplace) -> None:
        super().__init__()
        self.model, self.posterior = model, posterior
        evaluation.without_mode(self)

    def forward(self, inputs: Any) -> Float[Tensor, "n c"]:
        """Logits whose softmax is the probit answer."""
        with recorded(self.model, [self.posterior.layer]) as calls:
            logits = self.model(inputs)
        layer, made = self.posterior.layer, calls[self.posterior.layer]
        if len(made) != 1 or made[0].inputs[0].ndim != 2:
            raise ModelError(
                f"posterior: expected one call of the layer {layer!r} a pass, with inputs (n, d), got {len(made)} of "
                f"shape {[tuple(call.inputs[0].shape) for call in made]}"
            )
        features, output = made[0].inputs[0], made[0].output
        if output.shape != logits.shape or not torch.equal(output.to(logits), logits):
            raise ModelError(
                f"posterior: expected a network that gives what its layer {layer!r} does, got other logits: it scales, "
                "picks or orders them, so that their variances are not known"
            )
        spread = fitted.mapped(self.posterior, lambda part: part.to(features.device)).spread(features).to(logits)
        return logits / (1 + math.pi / 8 * spread).sqrt()


def fit(
    features: Features,
    labels: Labels,
    head: Head,
    *,
    layer: str,
    bias: bool = True,
    structure: Structure = "full",
    prior_precision: float | None = None,
) -> Laplace:
    """Fit to a trained classifier's last layer, from what one pass over the training data observed.

    Costs no training and one pass; draws share the whole network but its last layer, so that hundreds of them cost
    little more than one pass. Formula: w ~ N(w*, (H + t I)^-1), H = sum_n (diag(p_n) - p_n p_n^T) (x) f_n f_n^T over
    features f (a 1 appended for the bias) and probabilities p; t is the precision of the prior. `kronecker` takes
    H = n E[diag(p) - p p^T] (x) E[f f^T], `diagonal` its diagonal. Computed in float64.

    Parameters
    ----------
    features, labels
        Of the training data, `(n, d)` and `(n,)`, as `observe` gives them.
    head
        Weight (c, d) and bias (c,) of the layer.
    layer
        Its name in the model: a linear layer or a 1x1 convolution.
    bias
        False for a layer without one; `head` then holds zeros in its place.
    structure
        `full` up to 6,000 weights; `kronecker` for any number.
    prior_precision
        t > 0; by default the one of the highest evidence (log marginal likelihood).

    Raises
    ------
    DataError
        If the lengths differ, the set is empty, features are not finite, or a label is no class of the head.
    OptionError
        If the structure is OOD or too large, or the precision not positive.

    Source: Daxberger et al., Laplace Redux, NeurIPS 2021 (arXiv 2106.14806); Kristiadi et al., Being Bayesian, Even
    Just a Bit, Fixes Overconfidence in ReLU Networks, ICML 2020 (arXiv 2002.10118).
    """
    extended, weights = _extended(features, len(labels), head, bias)
    logits = extended @ weights.T
    check_labels(labels, logits, "labels")
    logs = logits.log_softmax(dim=1)
    likelihood = float(logs.gather(1, labels.unsqueeze(1)).sum())
    probs = logs.exp()

    def curvature(rows: slice) -> Tensor:
        p = probs[rows]
        return torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)

    made = _fit(extended, curvature, likelihood, weights, layer, structure, prior_precision, features.dtype)
    return replace(made, bias=bias)


def fit_regression(
    features: Features,
    targets: Float[Tensor, "n c"],
    head: Head,
    *,
    layer: str,
    noise: float,
    bias: bool = True,
    structure: Structure = "full",
    prior_precision: float | None = None,
) -> Laplace:
    """Fit to a regression network's last layer: exact where the network is linear in its weights.

    As `fit`, with H = sum_n I / noise (x) f_n f_n^T.

    Parameters
    ----------
    noise
        Variance of the targets about their mean, in squared units of the targets; the mean squared residual is usual.

    Raises
    ------
    DataError, OptionError
        As `fit`; and if `noise` is not positive.
    """
    if not noise > 0:
        raise OptionError(f"noise: expected a positive variance, got {noise}")
    extended, weights = _extended(features, len(targets), head, bias)
    residuals = targets.double() - extended @ weights.T
    likelihood = float(-0.5 * (residuals.square() / noise + math.log(2 * math.pi * noise)).sum())
    identity = torch.eye(len(weights), dtype=torch.float64, device=features.device) / noise

    def curvature(rows: slice) -> Tensor:
        return identity.expand(len(extended[rows]), -1, -1)

    made = _fit(extended, curvature, likelihood, weights, layer, structure, prior_precision, features.dtype)
    return replace(made, bias=bias)


def _extended(features: Features, count: int, head: Head, biased: bool) -> tuple[Tensor, Tensor]:
    """Features with a 1 appended, and the weights with the bias appended, in float64; both as they are without one."""
    if len(features) != count or not count:
        raise DataError(f"features: expected as many as labels and at least one, got {len(features)} and {count}")
    if not all_finite(features):
        raise DataError("features: expected finite numbers, got NaN or infinity")
    weight, bias = head
    if not biased:
        if bias.any():
            raise OptionError("bias: expected zeros in the head where the layer has none, got others")
        return features.double(), weight.detach().to(features.device, torch.float64)
    extended = torch.cat([features, features.new_ones(count, 1)], dim=1).double()
    return extended, torch.cat([weight, bias.unsqueeze(1)], dim=1).detach().to(extended)


def _fit(
    extended: Tensor,
    curvature: Callable[[slice], Tensor],
    likelihood: float,
    weights: Tensor,
    layer: str,
    structure: Structure,
    precision: float | None,
    dtype: torch.dtype,
) -> Laplace:
    if structure not in FORMS:
        raise OptionError(f"structure: expected one of {', '.join(FORMS)}, got {structure!r}")
    if precision is not None and not precision > 0:
        raise OptionError(f"prior_precision: expected a positive number, got {precision}")
    size, empty = weights.numel(), weights.new_empty(0, 0)
    if structure == "full" and size > LIMIT:
        raise OptionError(f"structure: {size} weights are too many for 'full' (at most {LIMIT}): use 'kronecker'")
    values, outputs, inputs = FORMS[structure](extended, curvature, len(weights))
    values = values.clamp_min(0)

    def evidence(log_precision: float) -> float:
        prior = math.exp(log_precision)
        shrink = 0.5 * size * log_precision - 0.5 * prior * float(weights.square().sum())
        return likelihood + shrink - 0.5 * float((values + prior).log().sum())

    best = _highest(evidence) if precision is None else math.log(precision)
    deviation = (values + math.exp(best)).rsqrt().reshape(weights.shape)
    parts = (weights, empty if outputs is None else outputs, empty if inputs is None else inputs, deviation)
    # contiguous as they will be when read back from a file: products round alike
    kept = [part.to(dtype).contiguous() for part in parts]
    return Laplace(layer, kept[0], kept[1], kept[2], kept[3], math.exp(best), evidence(best), bias=True)


Form = tuple[Tensor, Tensor | None, Tensor | None]


def _full(extended: Tensor, curvature: Callable[[slice], Tensor], classes: int) -> Form:
    width = extended.shape[1]
    total = extended.new_zeros(classes * classes, width * width)
    for rows in _rows(len(extended), width * width):
        outer = extended[rows].unsqueeze(2) * extended[rows].unsqueeze(1)
        total += curvature(rows).flatten(1).T @ outer.flatten(1)
    matrix = total.reshape(classes, classes, width, width).permute(0, 2, 1, 3).reshape(classes * width, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors, None


def _kronecker(extended: Tensor, curvature: Callable[[slice], Tensor], classes: int) -> Form:
    rows = _rows(len(extended), classes * classes)
    over_classes = torch.stack([curvature(part).sum(dim=0) for part in rows]).sum(dim=0)
    left, outputs = torch.linalg.eigh(over_classes)
    right, inputs = torch.linalg.eigh(extended.T @ extended / len(extended))
    return left.unsqueeze(1) * right, outputs, inputs


def _diagonal(extended: Tensor, curvature: Callable[[slice], Tensor], classes: int) -> Form:
    rows = _rows(len(extended), classes * classes)
    parts = [curvature(part).diagonal(dim1=1, dim2=2).T @ extended[part].square() for part in rows]
    return torch.stack(parts).sum(dim=0), None, None


FORMS: dict[str, Callable[[Tensor, Callable[[slice], Tensor], int], Form]] = {
    "full": _full,
    "kronecker": _kronecker,
    "diagonal": _diagonal,
}


def _rows(count: int, width: int) -> list[slice]:
    """Parts of at most 32 MB."""
    size = max(1, 4_000_000 // width)
    return [slice(start, start + size) for start in range(0, count, size)]


def _highest(function: Callable[[float], float]) -> float:
    """Where a function of the log precision is highest, on a grid from e^-14 to e^14 and refined."""
    low, high = -14.0, 14.0
    for _ in range(4):
        grid = [low + (high - low) * step / 28 for step in range(29)]
        at = max(range(29), key=lambda step: function(grid[step]))
        low, high = grid[max(0, at - 1)], grid[min(28, at + 1)]
    return (low + high) / 2
