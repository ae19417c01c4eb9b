"""A guard as a service: verdicts over HTTP, for pictures and arrays (extra `serve`).

`served.of_guard` wraps a guard, `app.application` answers requests with it, `running.run` listens.
"""

from caveat.serve.limits import Limits
from caveat.serve.served import Served

__all__ = ["Limits", "Served"]
