"""A guard: calibration, score and threshold around a network, which then answers or abstains.

`Guard.fit` makes one, `artefact.save` and `artefact.load` keep it.
"""

from caveat.guard import artefact, decision, threshold, verdict
from caveat.guard.discoveries import discoveries
from caveat.guard.guard import Guard
from caveat.guard.hub import from_hub, push_to_hub
from caveat.guard.multilabel import MultilabelGuard, MultilabelVerdict
from caveat.guard.pseudo_ood import pseudo_ood
from caveat.guard.regression import RegressionGuard, RegressionVerdict
from caveat.guard.threshold import refused_at_most
from caveat.guard.verdict import Verdict

__all__ = [
    "Guard",
    "MultilabelGuard",
    "MultilabelVerdict",
    "RegressionGuard",
    "RegressionVerdict",
    "Verdict",
    "artefact",
    "decision",
    "discoveries",
    "from_hub",
    "pseudo_ood",
    "push_to_hub",
    "refused_at_most",
    "threshold",
    "verdict",
]
