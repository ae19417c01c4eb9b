"""Calibrations: what makes a network's confidence mean what it says.

Each is fitted on held-out logits, `fit(logits, labels, *, ...) -> g`, and `g(logits)` are logits again.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from caveat.calibration import temperature

__all__ = ["FROM_LOGITS", "temperature"]

FROM_LOGITS: Mapping[str, Callable[..., Callable[[Tensor], Tensor]]] = {"temperature": temperature.fit}
"""Fits of the signature `fit(logits, labels, *, ...)`; what they give maps logits to logits."""
