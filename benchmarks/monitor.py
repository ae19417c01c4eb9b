"""How often a monitor raises a false alarm, and how soon it finds a change; the last line is JSON."""

import argparse
import json
import math
import statistics
import time

import numpy as np
import torch

from caveat.guard.monitor import Monitor
from caveat.guard.threshold import promise
from caveat.metrics import martingale

LEVEL = 0.01


def capital(p_values: np.ndarray) -> np.ndarray:
    """The logarithm of the capital of many streams `(s, n)` at once."""
    weights = np.tile(martingale.start(1 + len(martingale.EXTREME)), (len(p_values), 1))
    return martingale.advanced(weights, martingale.extremes(p_values), 0)[0].cumsum(axis=1)


def false_alarms(streams: int, length: int, reference: int) -> dict[str, float]:
    """Share of streams of exchangeable scores with an alarm: p-values among all before, or the reference alone."""
    rng = np.random.default_rng(0)
    growing, fixed = np.empty((streams, length)), np.empty((streams, length))
    for row in range(streams):
        known, scores = np.sort(rng.normal(size=reference)), rng.normal(size=length)
        growing[row] = martingale.Ranks(known, seed=row)(scores)
        fixed[row] = (1 + reference - np.searchsorted(known, scores)) / (1 + reference)
    alarm = math.log(1 / LEVEL)
    return {
        "growing": float((capital(growing).max(axis=1) >= alarm).mean()),
        "fixed": float((capital(fixed).max(axis=1) >= alarm).mean()),
    }


def delays(streams: int, at: int, share: float, distance: float) -> float:
    """Median number of inputs from a change, after which a share of the scores is higher, to the alarm of a monitor."""
    found: list[float] = []
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        known = torch.from_numpy(np.sort(rng.normal(size=1000)))
        watching = Monitor(known, None, promise(known, torch.zeros(1000, dtype=torch.bool), keep=0.95), seed=seed)
        scores = rng.normal(size=at + 2000)
        other = (rng.random(len(scores)) < share) & (np.arange(len(scores)) >= at)
        scores[other] += distance
        alarms = watching.update(scores, scores <= watching.threshold)
        found.append(alarms[0].at - at if alarms else math.inf)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--length", type=int, default=10_000)
    streams, length = vars(parser.parse_args()).values()
    begun = time.perf_counter()
    found = false_alarms(streams, length, 1000)
    print(f"false alarms in {streams} streams of {length:,} inputs, level {LEVEL:.0%}: "
          f"{found['growing']:.1%}; with p-values among the reference alone {found['fixed']:.1%}")  # fmt: skip
    late = {at: delays(max(20, streams // 10), at, 0.05, 4.0) for at in (0, 1000, 5000)}
    for at, delay in late.items():
        print(f"5 % of the inputs 4 deviations higher from input {at:,}: alarm after {delay:.0f} inputs (median)")
    print(json.dumps({"false_alarms": found, "delay": late, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
