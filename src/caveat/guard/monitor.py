"""Watches a guard at work: says when its inputs, its abstentions or its errors are no longer those it was fitted on.

It may be looked at after every input: all its alarms together are false with a probability of at most `level`, however
long it runs. It holds for exchangeable inputs: neighbouring frames of a film are not, one picture of each film is.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from caveat.errors import DataError, OptionError
from caveat.files import read_json
from caveat.guard.threshold import CANDIDATES, Promise, error_bound, refused_at_most
from caveat.metrics import martingale
from caveat.records.monitor import Alarm, Bet, Kept, Point, State, Watched

__all__ = ["Monitor", "kept"]

Found = TypeVar("Found", bound=Kept)

TITLES: dict[Watched, str] = {
    "scores": "the scores are higher than those of the inputs before",
    "abstentions": "the share of abstentions is above what the reference allows",
    "errors": "the share of wrong answers among the accepted is above its bound",
}
POINTS = 1000
"""Points of the history that are kept at most: beyond, every second one is dropped."""
FEW = 50
"""Reference scores below which a change could hardly ever be told."""


class Monitor:
    """A running test of three claims: the scores come from where they came from; at most so many abstentions as the
    threshold allows; at most so many errors among the accepted inputs as the guard guarantees, or had.

    Parameters
    ----------
    reference, wrong
        Ascending scores of held-out in-distribution data `(m,)`, and which of their answers were wrong (None where no
        answer is simply wrong: then errors are not watched).
    promise
        The guard's threshold.
    level
        Probability, in ]0, 1[, that any alarm at all is raised although nothing has changed.
    seed
        Of the random numbers that break ties between equal scores.

    Each claim has an equal part of `level`. The bound on abstentions is what the reference allows, at half of its part,
    as the threshold is one of its scores; errors are bounded by the guarantee (`max_error`), or likewise. Costs about
    50 microseconds for each input, and constant memory.

    Raises
    ------
    OptionError
        If `level` is not in ]0, 1[.
    DataError
        If the reference holds fewer than 50 scores.

    Source: V. Vovk et al., Testing exchangeability on-line, ICML 2003; I. Waudby-Smith, A. Ramdas, Estimating means of
    bounded random variables by betting, JRSS B 2024. Others at the same level: `metrics.martingale`.
    """

    def __init__(
        self, reference: Tensor, wrong: Tensor | None, promise: Promise, *, level: float = 0.01, seed: int = 0
    ) -> None:
        if not 0 < level < 1:
            raise OptionError(f"level: expected a probability in (0, 1), got {level}")
        if len(reference) < FEW:
            raise DataError(f"guard: its reference has {len(reference)} scores; at least {FEW} are needed to watch it")
        scores = reference.double().cpu().numpy()
        part = level / (3 if wrong is not None else 2)
        half = 2 / part  # where a bound is estimated, half of the part is spent on that
        bets: dict[Watched, Bet] = {
            "scores": _bet(1 / part, None, 1 + len(martingale.EXTREME)),
            "abstentions": _bet(half, _most_abstentions(scores, promise, part / 2), 1 + len(martingale.HIGHER)),
        }
        if wrong is not None:
            told = promise.kind == "max_error"
            bound = promise.level if told else _most_errors(scores, wrong.cpu().numpy(), promise, part / 2)
            bets["errors"] = _bet(1 / part if told else half, bound, 1 + len(martingale.HIGHER))
        self._ranks = martingale.Ranks(scores, seed=seed)
        self.threshold = promise.threshold
        self.state = State(level=level, seed=seed, counts=self._ranks.counts.tolist(), bets=bets)

    def resume(self, state: State) -> "Monitor":
        """Go on from a state that was kept; of the same guard, level and seed.

        Raises
        ------
        DataError
            If it is of another.
        """
        own = self.state
        alike = (state.level, state.seed, list(state.bets), len(state.counts)) == (
            own.level, own.seed, list(own.bets), len(own.counts),
        )  # fmt: skip
        if not alike or any(state.bets[name].bound != bet.bound for name, bet in own.bets.items()):
            raise DataError(
                "state: it is of another guard, threshold, level or seed; begin anew with another output folder"
            )
        if sum(state.counts) != sum(own.counts) + state.seen:
            raise DataError("state: its counts are not those of its inputs: it was altered; begin anew")
        self.state = state.model_copy(deep=True)
        self._ranks = martingale.Ranks(self._ranks.edges, np.array(state.counts), seed=state.seed, drawn=state.seen)
        return self

    def update(self, scores: Sequence[float] | np.ndarray, accepted: Sequence[bool] | np.ndarray) -> list[Alarm]:
        """Take the next verdicts, in the order in which the inputs came; the alarms that are new.

        Scores that are NaN (inputs that hold no numbers) count as the highest.

        Raises
        ------
        DataError
            If there are not as many of the one as of the other.
        """
        found, answered = np.asarray(scores, dtype=np.float64), np.asarray(accepted, dtype=bool)
        if found.shape != answered.shape or found.ndim != 1:
            raise DataError(f"scores: expected as many as accepted, got {found.shape} and {answered.shape}")
        before = list(self.state.alarms)
        for start in range(0, len(found), martingale.TOGETHER):
            part = slice(start, start + martingale.TOGETHER)
            self._take(found[part], answered[part])
        self.state.counts = self._ranks.counts.tolist()
        return self._since(before)

    def learn(self, wrong: Sequence[bool] | np.ndarray) -> list[Alarm]:
        """Take labels as they arrive: which answers to accepted inputs were wrong; the alarms that are new.

        Which inputs are labelled must not depend on whether the answer is right.

        Raises
        ------
        OptionError
            If the guard's task has no answers that are simply wrong.
        """
        if "errors" not in self.state.bets:
            raise OptionError("wrong: errors are watched of classifiers alone")
        before = list(self.state.alarms)
        self._advance("errors", np.asarray(wrong, dtype=np.float64))
        return self._since(before)

    def _since(self, before: list[Alarm]) -> list[Alarm]:
        return [alarm for alarm in self.state.alarms if alarm not in before]

    def _take(self, scores: np.ndarray, accepted: np.ndarray) -> None:
        state, first = self.state, self.state.seen
        curves = {
            "scores": self._advance("scores", martingale.extremes(self._ranks(scores))),
            "abstentions": self._advance("abstentions", 1.0 - accepted),
        }
        abstained = state.bets["abstentions"].hits - np.cumsum(~accepted[::-1])[::-1] + ~accepted
        errors = state.bets["errors"].capital if "errors" in state.bets else None
        for place in range(len(scores)):
            seen = first + place + 1
            if seen % state.stride:  # which may double on the way
                continue
            capital: dict[Watched, float] = {name: float(curve[place]) for name, curve in curves.items()}  # pyright: ignore[reportAssignmentType]  # the two names above
            if errors is not None:
                capital["errors"] = errors
            state.history.append(Point(seen=seen, capital=capital, accepted=1 - float(abstained[place]) / seen))
            if len(state.history) > POINTS:
                state.stride *= 2
                state.history = [point for point in state.history if point.seen % state.stride == 0]

    def _advance(self, name: Watched, values: np.ndarray) -> np.ndarray:
        """The logarithm of the capital after each new value; state and alarms follow."""
        bet = self.state.bets[name]
        if bet.bound is None:
            odds = values
        elif bet.bound >= 1:
            odds = np.ones((len(values), len(bet.weights)))  # nothing is claimed, so there is nothing to bet against
        else:
            odds = martingale.hits(values, bet.bound)
        gained, weights = martingale.advanced(np.array(bet.weights), odds, bet.seen)
        curve = np.cumsum([bet.capital, *gained])[1:]  # one by one: sums must not depend on the size of a batch
        lowest = np.minimum.accumulate([bet.lowest, *curve])[1:]
        fell = np.flatnonzero(curve < np.concatenate([[bet.lowest], lowest])[:-1])
        over = np.flatnonzero(curve >= bet.needed)
        if len(over) and not any(alarm.watched == name for alarm in self.state.alarms):
            earlier = fell[fell <= over[0]]
            since = bet.seen + int(earlier[-1]) + 1 if len(earlier) else bet.lowest_at
            found = {alarm.watched: alarm for alarm in self.state.alarms}
            found[name] = Alarm(watched=name, at=bet.seen + int(over[0]) + 1, since=since)
            # verdicts and labels are counted apart: which alarm came first depends on how many are taken at once
            self.state.alarms = [found[each] for each in self.state.bets if each in found]
        if len(curve):
            bet.lowest_at = bet.seen + int(fell[-1]) + 1 if len(fell) else bet.lowest_at
            bet.capital, bet.lowest = float(curve[-1]), float(lowest[-1])
        bet.seen += len(curve)
        bet.weights = weights.tolist()
        if bet.bound is not None:
            bet.hits += int(values.sum())
        return curve

    def sentences(self) -> list[str]:
        """What is known of each claim, in the order of `Watched`."""
        alarms = {alarm.watched: alarm for alarm in self.state.alarms}
        return [_told(name, bet, alarms.get(name)) for name, bet in self.state.bets.items()]


def kept(path: Path, kind: type[Found], *, guard: str, name: str, what: str, remedy: str) -> Found | None:
    """What a file holds of a monitor of the guard with this digest; None if there is no file.

    `name` is the option or the file's name that an error begins with, `what` the file is, `remedy` what to do.

    Raises
    ------
    DataError
        If it is something else, was altered, or is of another guard.
    """
    if not path.exists():
        return None
    try:
        found = kind.model_validate(read_json(path, name=name))
    except ValidationError as error:
        raise DataError(f"{name}: {path} is no state of {what} ({error.errors()[0]['msg']}); {remedy}") from None
    if found.guard != guard:
        raise DataError(f"{name}: {path} watches another guard, or this one before it was changed; {remedy}")
    return found


def _told(name: Watched, bet: Bet, alarm: Alarm | None) -> str:
    unit = "labels" if name == "errors" else "inputs"
    share = ""
    if bet.bound is not None and bet.seen:
        since = ", more since the change" if alarm is not None else ""
        share = f" ({bet.hits / bet.seen:.2%} of all so far{since}; the bound is {bet.bound:.2%})"
    if alarm is not None:
        return (
            f"Alarm: {TITLES[name]}{share}. Raised after {alarm.at} {unit}; the change began at about number "
            f"{alarm.since}."
        )
    evidence = math.exp(min(bet.capital, 700))
    raises = f"{math.exp(bet.needed):.3g} raises one"
    return f"No alarm for {name}{share}: e-value {evidence:.3g} after {bet.seen} {unit}, {raises}."


def _bet(needed: float, bound: float | None, bets: int) -> Bet:
    return Bet(needed=math.log(needed), bound=bound, weights=martingale.start(bets).tolist())


def _most_abstentions(scores: np.ndarray, promise: Promise, alpha: float) -> float:
    """Upper bound, at confidence 1 - alpha, on the share that a threshold refuses which was found among the scores."""
    count, refused = len(scores), int((scores > promise.threshold).sum())
    if promise.kind in ("against", "keep_each_class"):  # it may be any of the scores: a bound for all of them at once
        at = torch.tensor([promise.threshold], dtype=torch.float64)
        return float(refused_at_most(torch.from_numpy(scores), at, confidence=1 - alpha))
    tried = CANDIDATES if promise.kind == "max_error" else 1
    return error_bound(refused, count, alpha / tried)


def _most_errors(scores: np.ndarray, wrong: np.ndarray, promise: Promise, alpha: float) -> float:
    accepted = scores <= promise.threshold
    return error_bound(int(wrong[accepted].sum()), int(accepted.sum()), alpha)
