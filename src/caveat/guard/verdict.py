"""What a guard answers: a label or an abstention, with the numbers and the reason."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ACCEPTED", "INVALID", "REASONS", "UNREADABLE", "UNTRUSTED", "Verdict"]

ACCEPTED, UNTRUSTED, INVALID = 0, 1, 2
REASONS = ("accepted", "untrusted", "invalid input")
UNREADABLE = (
    "abstained: the input holds NaN or infinity, is far outside of the range that the guard was fitted on, or the "
    "network's output for it is not finite"
)


@dataclass(frozen=True)
class Verdict:
    """One row per input."""

    label: Int[Tensor, " n"]
    """The predicted class, or -1 where the guard abstains."""
    accepted: Bool[Tensor, " n"]
    predicted: Int[Tensor, " n"]
    """The class with the largest probability, whether it is accepted or not."""
    probs: Float[Tensor, "n c"]
    """Calibrated probabilities."""
    confidence: Float[Tensor, " n"]
    """The largest of them, in [0, 1]."""
    score: Float[Tensor, " n"]
    """Higher = less trustworthy."""
    p_value: Float[Tensor, " n"]
    """Share of held-out in-distribution inputs that are as little trustworthy or less, in (0, 1]; small = unlike
    in-distribution data."""
    reason: Int[Tensor, " n"]
    """Index into `REASONS`."""
    aleatoric: Float[Tensor, " n"]
    """Uncertainty between the classes, in nats: entropy of the calibrated probabilities; of a posterior, the
    expected entropy of its draws as they are."""
    epistemic: Float[Tensor, " n"] | None
    """Uncertainty about the network itself, in nats: mutual information of a posterior's draws; None for a single
    network, which has no source for it."""
    threshold: float
    score_name: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.label)

    def explain(self, row: int) -> str:
        """Why this input was accepted or refused, in a sentence a person can read."""
        if int(self.reason[row]) == INVALID:
            return UNREADABLE
        name, confidence = self.classes[int(self.predicted[row])], float(self.confidence[row])
        score, p = float(self.score[row]), float(self.p_value[row])
        accepted = bool(self.accepted[row])
        return (
            f"{'accepted' if accepted else 'abstained'}: predicted {name} ({confidence:.1%} confident), "
            f"{self.score_name} score {score:.4g} {'at or below' if accepted else 'above'} the threshold "
            f"{self.threshold:.4g}; {_share(p)} of in-distribution inputs score as high"
        )


def _share(p: float) -> str:
    return f"{p:.1%}" if p >= 0.001 else f"{p:.1e}"
