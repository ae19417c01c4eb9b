"""Cross-entropy with softer aims: label smoothing, focal loss, entropy regularisation, normalised logits, mixup."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.errors import OptionError
from caveat.objectives._ranges import at_least, fraction
from caveat.types import Labels

__all__ = ["EntropyRegularisation", "Focal", "LabelSmoothing", "LogitNorm", "Mixup"]


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy to labels that give `weight` of their mass to all classes alike.

    Better calibrated, often worse at telling OOD inputs. Formula: (1 - weight) CE + weight mean_k -log p_k.

    Raises
    ------
    OptionError
        If `weight` is not in [0, 1].

    Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (arXiv 1512.00567), section 7.
    """

    weight: int | float = 0.1

    def __post_init__(self) -> None:
        fraction("weight", self.weight)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        del generator
        return functional.cross_entropy(model(inputs), labels, label_smoothing=self.weight)


@dataclass(frozen=True)
class Focal:
    """Cross-entropy that weighs samples less the surer the network is of their label.

    Less overconfident networks. Formula: mean -(1 - p_label)^gamma log p_label; gamma 0 is cross-entropy.

    Raises
    ------
    OptionError
        If `gamma` is negative.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017 (arXiv 1708.02002); for calibration: Mukhoti et
    al., NeurIPS 2020 (arXiv 2002.09437).
    """

    gamma: int | float = 1.0

    def __post_init__(self) -> None:
        at_least("gamma", self.gamma, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        del generator
        loss = functional.cross_entropy(model(inputs), labels, reduction="none")
        if not self.gamma:
            return loss.mean()
        # 1 - p kept off 0, where a power below 1 has no finite slope
        rest = (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).tiny)
        return (rest**self.gamma * loss).mean()


@dataclass(frozen=True)
class EntropyRegularisation:
    """Cross-entropy minus `weight` times the entropy of the answers: confident predictions cost.

    Formula: mean CE - weight mean H[p]; weight 0 is cross-entropy.

    Raises
    ------
    OptionError
        If `weight` is negative.

    Source: Pereyra et al., Regularizing Neural Networks by Penalizing Confident Output Distributions, ICLR workshop
    2017 (arXiv 1701.06548).
    """

    weight: int | float = 0.1

    def __post_init__(self) -> None:
        at_least("weight", self.weight, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        del generator
        logs = model(inputs).log_softmax(dim=1)
        entropy = -(logs.exp() * logs.clamp_min(torch.finfo(logs.dtype).min)).sum(dim=1).mean()
        return functional.nll_loss(logs, labels) - self.weight * entropy


@dataclass(frozen=True)
class LogitNorm:
    """Cross-entropy of logits brought to one length: their size can no longer grow to look confident.

    Formula: mean CE(logits / (temperature |logits|)). At test time the logits are used as they are.

    Raises
    ------
    OptionError
        If `temperature` is not positive.

    Source: Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML 2022 (arXiv 2205.09310).
    """

    temperature: int | float = 0.04

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise OptionError(f"temperature: expected a positive number, got {self.temperature}")

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        del generator
        logits = model(inputs)
        length = torch.linalg.vector_norm(logits, dim=1, keepdim=True).clamp_min(1e-7)
        return functional.cross_entropy(logits / (self.temperature * length), labels)


@dataclass(frozen=True)
class Mixup:
    """Cross-entropy on mixtures of two inputs, to the same mixture of their labels.

    Formula: x = l x_i + (1 - l) x_j, loss l CE(x, y_i) + (1 - l) CE(x, y_j), l ~ Beta(alpha, alpha) once a batch;
    alpha 0 is cross-entropy.

    Raises
    ------
    OptionError
        If `alpha` is negative.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018 (arXiv 1710.09412).
    """

    alpha: int | float = 0.2

    def __post_init__(self) -> None:
        at_least("alpha", self.alpha, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        if not self.alpha:
            return functional.cross_entropy(model(inputs), labels)
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))  # torch's draws from no generator
        order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
        logits = model(share * inputs + (1 - share) * inputs[order])
        first, second = functional.cross_entropy(logits, labels), functional.cross_entropy(logits, labels[order])
        return share * first + (1 - share) * second
