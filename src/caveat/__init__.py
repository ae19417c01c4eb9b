"""Caveat: predictions that come with their caveats.

Every score is oriented one way: higher means less trustworthy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caveat.audits.audit import audit
    from caveat.guard.guard import Guard
    from caveat.observations import Observations, observe
    from caveat.records.record import Record

__all__ = ["Guard", "Observations", "Record", "audit", "observe"]
__version__ = "0.2.0"

# Lazy, so that `caveat --help` and the report do not wait for torch.
_HOME = {
    "Guard": "caveat.guard.guard",
    "Observations": "caveat.observations",
    "Record": "caveat.records.record",
    "audit": "caveat.audits.audit",
    "observe": "caveat.observations",
}


_PACKAGES = (
    "attacks", "audits", "bounds", "calibration", "data", "guard", "metrics", "models", "neurons", "objectives",
    "posteriors", "rays", "records", "report", "scores", "scoring", "serve", "training",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return import_module(f"caveat.{name}")
    raise AttributeError(f"module 'caveat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_PACKAGES, "__version__"]
