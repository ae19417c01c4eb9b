"""What a training run did, epoch by epoch."""

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["History", "Totals"]


@dataclass(frozen=True)
class History:
    """One entry an epoch."""

    loss: tuple[float, ...] = ()
    """Mean of the objective over the epoch's samples, each taken before the step it leads to."""
    accuracy: tuple[float | None, ...] = ()
    """Share of the samples that were answered right while training, in [0, 1]; None where the objective never asked
    the model about its inputs as they are, or the model is no classifier."""
    seconds: tuple[float, ...] = ()

    def after(self, totals: "Totals") -> "History":
        """With one more epoch."""
        accuracy = totals.correct / totals.judged if totals.judged else None
        return replace(
            self,
            loss=(*self.loss, totals.loss / totals.samples),
            accuracy=(*self.accuracy, accuracy),
            seconds=(*self.seconds, totals.seconds),
        )

    def followed_by(self, later: "History") -> "History":
        """With the epochs of another run after those of this one."""
        return History(self.loss + later.loss, self.accuracy + later.accuracy, self.seconds + later.seconds)


@dataclass(frozen=True)
class Totals:
    """Sums over the part of an epoch that is done."""

    loss: float = 0.0
    samples: int = 0
    correct: int = 0
    judged: int = 0
    steps: int = 0
    seconds: float = field(default=0.0, compare=False)

    def plus(self, *, loss: float, samples: int, correct: int | None, seconds: float) -> "Totals":
        """With one more step. `correct` is None when the step did not tell."""
        return Totals(
            self.loss + loss * samples,
            self.samples + samples,
            self.correct + (correct or 0),
            self.judged + (samples if correct is not None else 0),
            self.steps + 1,
            self.seconds + seconds,
        )

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return dict(self.__dict__)
