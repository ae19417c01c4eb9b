"""How far may this one answer be trusted? Every score: higher = less trustworthy.

The tables at the end say what each score needs. What needs no fitting is a function of logits. What is fitted is a
frozen dataclass that `fit` returns, called on features.
"""

from collections.abc import Callable
from typing import Any

from caveat.scores import knn, logits, mahalanobis, moments, relative_mahalanobis, vim

__all__ = [
    "FROM_FEATURES",
    "FROM_HEAD",
    "FROM_LOGITS",
    "FROM_MOMENTS",
    "FROM_RAW_LOGITS",
    "knn",
    "logits",
    "mahalanobis",
    "moments",
    "relative_mahalanobis",
    "vim",
]

FROM_LOGITS: dict[str, Callable[..., Any]] = {
    "msp": logits.msp,
    "entropy": logits.entropy,
    "margin": logits.margin,
    "gen": logits.gen,
}
"""`score(logits)`; adding a constant to all logits of a sample changes nothing."""

FROM_RAW_LOGITS: dict[str, Callable[..., Any]] = {
    "max_logit": logits.max_logit,
    "energy": logits.energy,
}
"""`score(logits)`; the level of the logits counts."""

FROM_MOMENTS: dict[str, Callable[..., Any]] = {
    "mahalanobis": mahalanobis.from_moments,
    "relative_mahalanobis": relative_mahalanobis.from_moments,
}
"""`from_moments(moments) -> score(features)`; the module's `fit(features, labels)` gathers the moments itself."""

FROM_FEATURES: dict[str, Callable[..., Any]] = {
    "knn": knn.fit,
}
"""`fit(features, labels) -> score(features)`."""

FROM_HEAD: dict[str, Callable[..., Any]] = {
    "vim": vim.fit,
}
"""`fit(features, labels, head) -> score(features)`; `head` is weight and bias of the last linear layer."""
