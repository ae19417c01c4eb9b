"""What an attack makes large: functions `(logits, labels) -> (n,)`, of which higher means more harm."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.types import Labels, Logits

__all__ = ["Loss", "confidence", "cross_entropy", "dlr", "dlr_towards", "log_odds", "margin", "soft_margin", "towards"]

Loss: TypeAlias = Callable[[Logits, Labels], Tensor]


def log_odds(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """log((1 - p) / p) of the label's probability p, in (-inf, inf); at 0 the label has half of it.

    The logarithm of exp(cross-entropy) - 1, so it is largest where cross-entropy is and its gradient points the same
    way, but does not vanish where p rounds to 1: an attack that normalises its steps climbs both alike, and is not
    stopped by a network that is merely confident. Formula: logsumexp(other logits) - logit of the label.

    Source: the logit is that of Cox, The regression analysis of binary sequences, 1958; as the loss of an attack, ours.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return _others(logits, labels).logsumexp(1) - own


def cross_entropy(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Cross-entropy, in nats, >= 0; right to the last digit where p is near 1.

    Formula: -log p of the label. Source: Goodfellow, Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572).
    """
    return functional.softplus(log_odds(logits, labels), threshold=50)


def margin(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """The largest other logit minus the label's: above 0 the answer is wrong.

    Formula: max_{k != y} z_k - z_y. Source: Carlini and Wagner, S&P 2017 (arXiv 1608.04644), section V (f_6).
    """
    return _others(logits, labels).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def soft_margin(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """The margin, with the slope of a soft maximum, which is the sharper the smaller the margin is.

    Far from the border all likely classes are drawn nearer, as by cross-entropy; near it, the nearest one, as by the
    margin. Neither alone breaks as much (`benchmarks/attacks.py`). A factor on the logits is one on the loss.
    Formula: the value max_{k != y} z_k - z_y and the gradient of log(sum_{k != y} exp(T z_k)) / T - z_y, with T =
    (1 + log(c - 1)) / |margin|. Source: ours; at a fixed T the logits' scale decides what it does.
    """
    others, value = _others(logits, labels), margin(logits, labels)
    sharpness = 1 + math.log(max(logits.shape[1] - 1, 1))
    heat = (value.detach().abs() / sharpness).clamp_min(torch.finfo(logits.dtype).tiny)[:, None]
    top = others.detach().amax(1, keepdim=True)
    soft = (heat * ((others - top) / heat).logsumexp(1, keepdim=True)).squeeze(1) - logits.gather(
        1, labels[:, None]
    ).squeeze(1)
    return value.detach() + (soft - soft.detach())


def dlr(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """The margin over the distance of the largest to the third largest logit; scale and shift change nothing.

    Of two classes there is no third, and the distance of the two is the margin itself, up to its sign: there it is the
    margin, which points the same way.
    Formula: (max_{k != y} z_k - z_y) / (z_(1) - z_(3)), in [-1, ...). Source: Croce and Hein, ICML 2020 (arXiv
    2003.01690), equation 6.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(torch.finfo(logits.dtype).tiny)


def dlr_towards(targets: Labels) -> Loss:
    """The loss that draws each sample's answer from its label to one target class; scale and shift change nothing.

    Of three classes z_(4) is taken for z_(3), and of two it is the margin.
    Formula: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2). Source: Croce and Hein, ICML 2020 (arXiv 2003.01690),
    equation 7.
    """

    def drawn(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
        gain = logits.gather(1, targets[:, None]).squeeze(1) - logits.gather(1, labels[:, None]).squeeze(1)
        if logits.shape[1] < 3:
            return gain
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        return gain / (top[:, 0] - top[:, 2:].mean(1)).clamp_min(torch.finfo(logits.dtype).tiny)

    return drawn


def confidence(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """The largest log-probability, whatever the label: what is climbed from noise, in [-log c, 0].

    Formula: max_k log p_k. Source: Hein, Andriushchenko and Bitterwolf, CVPR 2019, section 4 (the loss on noise).
    """
    del labels
    return -functional.softplus(log_odds(logits, logits.argmax(1)), threshold=50)


def towards(loss: Loss) -> Loss:
    """The targeted version: the labels are where the attack wants to go, so their loss is made small."""

    def targeted(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
        return -loss(logits, labels)

    return targeted


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """All logits but the label's, whose place has -inf."""
    return logits.scatter(1, labels[:, None], -torch.inf)


LOSSES: dict[str, Loss] = {
    "confidence": confidence,
    "cross_entropy": cross_entropy,
    "dlr": dlr,
    "log_odds": log_odds,
    "margin": margin,
    "soft_margin": soft_margin,
}
