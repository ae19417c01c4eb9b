"""How the scripts here time what they compare."""

import statistics
import time
from collections.abc import Callable

__all__ = ["in_turns"]


def in_turns(repeats: int, actions: dict[str, Callable[[], object]], *, warm: bool = True) -> dict[str, float]:
    """Median seconds of each action; they take turns, so that a busy moment hits all alike.

    A first round is not counted, unless `warm` says that there is none.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values() if warm else ():
        action()
    for _ in range(repeats):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
