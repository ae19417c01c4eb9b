"""Training: one loop; the objective, the optimizer and what watches are arguments."""

from caveat.training.fit import ResumableTracker, Tracker, fit
from caveat.training.history import History
from caveat.training.members import members

__all__ = ["History", "ResumableTracker", "Tracker", "fit", "members"]
