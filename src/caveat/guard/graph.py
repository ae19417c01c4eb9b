"""A guard as a function of tensors alone, which can be traced: what an exported graph computes."""

import torch
from torch import Tensor, nn

from caveat import evaluation, heads
from caveat.guard.answer import answer
from caveat.guard.decision import Decision
from caveat.guard.entrance import blanked, invalid_rows
from caveat.guard.plain_operations import Plain
from caveat.guard.portable import OUTPUTS
from caveat.inputs import moved
from caveat.observations import glance_unread
from caveat.posteriors.at_once import AtOnce
from caveat.posteriors.network import Predictive
from caveat.scoring import catalog

__all__ = ["Graph"]


class Graph(nn.Module):
    """Network, calibration, score and comparison with a threshold that is an input."""

    def __init__(self, model: nn.Module, decision: Decision, head: heads.HeadLayer | None) -> None:
        """Join them. The draws of a posterior are made one pass; `posteriors.at_once` says what is raised."""
        super().__init__()
        self.model = AtOnce(model) if isinstance(model, Predictive) else model
        self.decision = decision
        self._head = head
        evaluation.without_mode(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        return (*OUTPUTS, "epistemic") if isinstance(self.model, AtOnce) else OUTPUTS

    def forward(self, inputs: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The parts of the guard's verdicts, by `outputs`; an input whose logits are not finite abstains."""
        made = self.decision
        source = catalog.signal(made.score.name)
        probes = {} if made.probe is None else {source: made.probe}
        with Plain():
            invalid = invalid_rows(inputs, made.shape, made.largest)
            safe = moved(blanked(inputs, invalid), self.model)
            logits, features, probed = glance_unread(self.model, safe, self._head, probes, "inputs")
            invalid = invalid | ~torch.isfinite(logits).all(dim=1)
            found = answer(made, logits, features, probed, invalid, threshold=threshold)
        parts = (
            found.label, found.predicted, found.probs, found.confidence, found.score, found.p_value, found.accepted,
            found.aleatoric,
        )  # fmt: skip
        return parts if found.epistemic is None else (*parts, found.epistemic)
