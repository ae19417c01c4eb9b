"""TRADI: the weights' distribution, tracked by Kalman filters while the network is trained as usual."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.posteriors import foreach
from caveat.posteriors.layers import fan_in, like, normal, of_norms, parameters

__all__ = ["Covariance", "Noise", "Tracker", "Tradi", "start"]

Covariance = Literal["shared", "per_weight", "diagonal"]


@dataclass(frozen=True)
class Noise:
    """Variances of the filters' noises: how far a weight may wander, and how far one step's weight may be trusted."""

    mean: float = 1e-4
    """Process noise of the mean."""
    variance: float = 5e-5
    """Process noise of the variance."""
    observed: float = 10.0
    """Observation noise of both."""


@dataclass(frozen=True)
class Tradi:
    """Tracked means and variances; weights of normalisation layers and frozen ones are as they were at the end."""

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    """Only of what is tracked."""
    covariance: Covariance
    features: int
    """Number of random Fourier features, the rank of a tensor's covariance."""
    length: float
    """Length scale of the kernel between two weights of one tensor, in units of weights."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network; tensors are independent of each other."""
        return {
            name: mean + self._moved(mean, self.variance[name].sqrt(), generator) if name in self.variance else mean
            for name, mean in sorted(self.mean.items())  # a file keeps no order
        }

    def _moved(self, mean: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
        if self.covariance == "diagonal":
            return deviation * normal(mean, generator)
        kind = mean.new_empty(self.features)
        frequencies, factors = normal(kind, generator) / self.length, normal(kind, generator)
        moved = torch.zeros_like(mean)
        phases = None if self.covariance == "per_weight" else _phases(kind, generator)
        for j in range(self.features):
            phase = _phases(mean, generator) if phases is None else phases[j]
            moved += factors[j] * torch.cos(frequencies[j] * mean + phase)
        return math.sqrt(2 / self.features) * deviation * moved


def _phases(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return (2 * math.pi * drawn).to(like.device)


class Tracker:
    """Two scalar Kalman filters a weight, which share their gains."""

    def __init__(self, optimizer: torch.optim.Optimizer, noise: Noise, burn_in: int) -> None:
        self._optimizer, self._noise, self._burn_in = optimizer, noise, burn_in
        self._steps = 0
        self._uncertainty = (0.0, 0.0)  # of the mean and of the variance: P in the papers on filters
        self._mean: dict[str, Tensor] = {}
        self._variance: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Call after every step of the optimizer, while the gradients of that step are still there."""
        self._steps += 1
        if self._steps <= self._burn_in:
            return
        weights = parameters(model)
        fixed = self._untracked(model)
        self._fixed = {name: weight.clone() for name, weight in weights.items() if name in fixed}
        if not self._mean:
            self.begin(model)
        self._mean, self._variance = like(self._mean, weights), like(self._variance, weights)
        names = list(self._mean)
        now = [weights[name] for name in names]
        mean, variance = list(self._mean.values()), list(self._variance.values())
        self._predict(model, names, mean, variance)
        gain_mean, gain_variance = self._gains()
        foreach.lerp_(mean, now, gain_mean)
        apart = foreach.sub(now, mean)
        foreach.mul_(variance, 1 - gain_variance)
        foreach.addcmul_(variance, apart, apart, value=gain_variance)

    def begin(self, model: nn.Module) -> None:
        """Start from these weights: as random as He's initialisation before training, of variance 0 after burn-in."""
        inputs, fixed = fan_in(model), self._untracked(model)
        for name, weight in parameters(model).items():
            if name not in fixed:
                self._mean[name] = weight.clone()
                self._variance[name] = torch.full_like(weight, 0.0 if self._burn_in else 2 / inputs[name])

    def _untracked(self, model: nn.Module) -> set[str]:
        """Names of weights that stay as they are in draws: of normalisation layers, and those that are not trained."""
        held = {id(weight) for weight in _held(self._optimizer)}
        frozen = {name for name, w in model.named_parameters() if not w.requires_grad or id(w) not in held}
        return of_norms(model) | frozen

    def _predict(self, model: nn.Module, names: list[str], mean: list[Tensor], variance: list[Tensor]) -> None:
        """What a gradient step of each weight's own rate would do: the state equations."""
        rates = {id(weight): group["lr"] for group in self._optimizer.param_groups for weight in group["params"]}
        own = dict(model.named_parameters())
        moving: dict[float, list[int]] = {}
        for position, name in enumerate(names):
            if own[name].grad is not None and id(own[name]) in rates:
                moving.setdefault(float(rates[id(own[name])]), []).append(position)
        for rate, positions in moving.items():
            steps = [weight for p in positions if (weight := own[names[p]].grad) is not None]
            foreach.add_([mean[p] for p in positions], steps, alpha=-rate)
            foreach.addcmul_([variance[p] for p in positions], steps, steps, value=rate**2)

    def _gains(self) -> tuple[float, float]:
        """The Kalman gains of this step, of mean and variance; the same for all weights."""
        noises = (self._noise.mean, self._noise.variance)
        before = [p + noise for p, noise in zip(self._uncertainty, noises, strict=True)]
        gains = [p / (p + self._noise.observed) for p in before]
        self._uncertainty = ((1 - gains[0]) * before[0], (1 - gains[1]) * before[1])
        return gains[0], gains[1]

    def posterior(self, *, covariance: Covariance = "shared", features: int = 10, length: float = 1.0) -> Tradi:
        """What was tracked, as a distribution; the tracker may go on.

        Parameters
        ----------
        covariance
            `shared`: one phase a random feature for all weights of a tensor, the paper's kernel. `per_weight`: a phase
            a weight and feature, as in the authors' code, which leaves no covariance between weights. `diagonal`:
            independent weights.
        features, length
            Rank of the covariance and length scale of its kernel; 10 and 1 in the paper.

        Raises
        ------
        OptionError
            If nothing was tracked yet, or an option is out of range.
        """
        if not self._mean:
            raise OptionError(f"tradi: nothing tracked in {self._steps} steps: lower burn_in, now {self._burn_in}")
        if covariance not in ("shared", "per_weight", "diagonal") or features < 1 or not length > 0:
            raise OptionError(
                "tradi: expected covariance shared, per_weight or diagonal, features >= 1 and length > 0, got "
                f"{covariance!r}, {features}, {length}"
            )
        means = {name: mean.clone() for name, mean in self._mean.items()}
        return Tradi(
            mean=means | {name: weight.clone() for name, weight in self._fixed.items()},
            variance={name: variance.clone() for name, variance in self._variance.items()},
            covariance=covariance,
            features=features,
            length=length,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that was tracked."""
        return {
            "steps": self._steps, "uncertainty": list(self._uncertainty), "mean": dict(self._mean),
            "variance": dict(self._variance), "fixed": dict(self._fixed),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._steps, self._uncertainty = state["steps"], tuple(state["uncertainty"])
        self._mean, self._variance = dict(state["mean"]), dict(state["variance"])
        self._fixed = dict(state["fixed"])


def start(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, burn_in: int = 0, noise: Noise | None = None
) -> Tracker:
    """Watch a training run with any optimizer of torch; give the tracker to `training.fit`.

    For one training run and a few passes over the weights a step, draws that spread out where the data are few.
    Formula: for each weight w with gradient g and its learning rate r, gains K = P / (P + R) shared by all weights:

        mean:     m <- (1 - K) (m - r g) + K w
        variance: v <- (1 - K') (v + (r g)^2) + K' (w - m)^2

    The observation of the variance is that of w^2 = v + m^2; the printed equation has the sign of m^2 wrong. With
    plain SGD the state equation foresees each step exactly, so m stays at the weights themselves.
    Drawn: w = m + sqrt(2 / N) [sd cos(theta_j m + beta_j)]_j z, theta_j ~ N(0, 1 / length^2), beta_j ~ U(0, 2 pi), z ~
    N(0, I_N), for each tensor by itself: its covariance is sd_k sd_l exp(-(m_k - m_l)^2 / (2 length^2)) on average.
    Weights that are frozen, or that the optimizer does not hold, are drawn as they are. Batch-norm statistics must be
    renewed for each draw (`posteriors.sample(..., batches=...)`).

    Parameters
    ----------
    optimizer
        Whose learning rates the state equations use; a schedule may change them.
    burn_in
        Steps before tracking starts. With 0, tracking starts from He's variance 2 / n_in and forgets it slowly: by
        exp(-0.0022) a step.
    noise
        Of the filters; the authors' values by default.

    Raises
    ------
    OptionError
        If `burn_in` is negative, a noise is not positive, or the optimizer holds none of the model's weights.

    Source: Franchi et al., TRADI: Tracking Deep Neural Network Weight Distributions, ECCV 2020 (arXiv 1912.11316),
    eq. 3 to 6 of the authors' slides, corrected; noises as in their code.

    Example
    -------
    >>> model = nn.Linear(1, 1)
    >>> tracker = start(model, torch.optim.SGD(model.parameters(), lr=0.1))
    >>> model(torch.ones(1, 1)).sum().backward()
    >>> tracker.update(model)  # as the loop calls it after each step
    >>> sorted(tracker.posterior().draw(torch.Generator()))
    ['bias', 'weight']
    """
    noise = noise or Noise()
    if burn_in < 0 or min(noise.mean, noise.variance) < 0 or not noise.observed > 0:
        raise OptionError(f"tradi: expected burn_in >= 0 and positive noises, got {burn_in} and {noise}")
    held = {id(weight) for weight in _held(optimizer)}
    if not any(id(weight) in held for weight in model.parameters()):
        raise OptionError("optimizer: none of its parameters belongs to the model: make it from model.parameters()")
    tracker = Tracker(optimizer, noise, burn_in)
    if not burn_in:
        tracker.begin(model)
    return tracker


def _held(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"])
