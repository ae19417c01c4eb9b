"""Do the 95 % intervals hold the truth as often as they say, and do the promises hold? Simulated, sample for sample.

A classifier of ten Gaussian classes whose probabilities are exactly calibrated, or overconfident by a factor; pairs of
Gaussian score sets; truths from a population of a million, or in closed form. Where an interval is given for less
than half of the data sets, the cell is "too few" and says nothing but that. `held`: of the intervals given, the share
that holds the truth. `missed`: of all data sets, the share whose interval does not. The last line is JSON.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from zlib import crc32

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from caveat.calibration import CONFORMAL, cqr
from caveat.guard.threshold import promise
from caveat.metrics import calibration, proper, ranking, selective
from caveat.metrics.interval import Interval, interval_of_ece, interval_of_mean, interval_of_share
from caveat.metrics.interval_of_tally import interval_of_fpr, interval_of_ranking, interval_of_selective
from caveat.metrics.tally import tally, tally_sets

SIZES = (200, 2000)
CLASSIFIERS = ((1.5, 1.0), (3.0, 1.0), (4.0, 1.0), (4.5, 1.5), (1.5, 1.6))
"""Distance of the classes and factor on the logits: accuracy .51, .90, .983, .994, and .51 overconfident."""
SHIFTS = (0.5, 1.5, 3.0)
POPULATION = 1_000_000
GIVEN = 0.5


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How often an interval held."""

    what: str
    where: str
    n: int
    truth: float
    given: float
    held: float
    missed: float
    width: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How often a promise was kept, or by how much on the mean."""

    what: str
    promised: float
    seen: float
    error: float
    """Standard error of the simulation."""


def classifier(n: int, signal: float, hot: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits and labels; with `hot` 1 the softmax is the true posterior."""
    labels = torch.randint(10, (n,), generator=generator)
    seen = torch.randn(n, 10, generator=generator, dtype=torch.float64)
    seen[torch.arange(n), labels] += signal
    return hot * signal * seen, labels


def figures(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per sample or bin: what intervals are made of."""
    probs = logits.softmax(1)
    right = logits.argmax(1) == labels
    return {
        "right": right, "nll": proper.nll_of_each(logits, labels), "brier": proper.brier_of_each(probs, labels),
        "msp": -probs.amax(1),
    }  # fmt: skip


@cache
def population(signal: float, hot: float) -> dict[str, float]:
    """The truths, from as many samples as fit into memory at once."""
    logits, labels = classifier(POPULATION, signal, hot, torch.Generator().manual_seed(77))
    of = figures(logits, labels)
    mistakes = tally(of["msp"], ~of["right"].bool())
    return {
        "accuracy": float(of["right"].double().mean()), "nll": float(of["nll"].mean()),
        "brier": float(of["brier"].mean()),
        "ece": 0.0 if hot == 1 else float(calibration.ece(calibration.confidence_bins(logits.softmax(1), labels))),
        "auroc of mistakes": float(ranking.auroc(mistakes)), "aurc": float(selective.aurc(mistakes)),
    }  # fmt: skip


@cache
def pair_population(shift: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(99)
    counted = tally_sets(*normal_pair(POPULATION, shift, generator))
    return {
        "auroc": 0.5 * (1 + math.erf(shift / 2)), "aupr_in": float(ranking.aupr_in(counted)),
        "aupr_out": float(ranking.aupr_out(counted)), "fpr at 95 % tpr": float(ranking.fpr_at_tpr(counted)),
    }  # fmt: skip


def normal_pair(n: int, shift: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    known, ood = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    return known, shift + ood


def of_classifier(n: int, signal: float, hot: float, generator: torch.Generator) -> dict[str, Interval | None]:
    logits, labels = classifier(n, signal, hot, generator)
    of = figures(logits, labels)
    right = of["right"].bool()
    found: dict[str, Interval | None] = {
        "accuracy": interval_of_share(int(right.sum()), n),
        "nll": interval_of_mean(of["nll"]),
        "brier": interval_of_mean(of["brier"]),
        "ece": interval_of_ece(calibration.confidence_bins(logits.softmax(1), labels), generator=generator),
        "auroc of mistakes": None,
        "aurc": None,
    }
    if bool(right.any()) and not bool(right.all()):
        mistakes = tally(of["msp"], ~right)
        found["auroc of mistakes"] = interval_of_ranking(ranking.auroc, mistakes)
        found["aurc"] = interval_of_selective(selective.aurc, mistakes)
    return found


def of_pair(n: int, shift: float, generator: torch.Generator) -> dict[str, Interval | None]:
    counted = tally_sets(*normal_pair(n, shift, generator))
    return {
        "auroc": interval_of_ranking(ranking.auroc, counted),
        "aupr_in": interval_of_ranking(ranking.aupr_in, counted),
        "aupr_out": interval_of_ranking(ranking.aupr_out, counted),
        "fpr at 95 % tpr": interval_of_fpr(counted),
    }


def simulate(
    draw: Callable[[torch.Generator], dict[str, Interval | None]],
    truths: dict[str, float],
    *,
    where: str,
    n: int,
    runs: int,
) -> Iterator[Cell]:
    """One cell for each interval that `draw` makes of a data set."""
    first = crc32(f"{where}, {n}".encode())  # no two kinds of data share their random numbers
    drawn = [draw(torch.Generator().manual_seed(first + run)) for run in range(runs)]
    for what, truth in truths.items():
        given = [found for one in drawn if (found := one[what]) is not None]
        held = sum(found.low <= truth <= found.high for found in given)
        yield Cell(
            what=what, where=where, n=n, truth=truth, given=len(given) / runs,
            held=held / len(given) if given else math.nan, missed=(len(given) - held) / runs,
            width=sum(found.high - found.low for found in given) / len(given) if given else math.nan, runs=runs,
        )  # fmt: skip


def intervals(runs: int, *, smoke: bool) -> Iterator[Cell]:
    """Every interval, on every kind of data."""
    for n in SIZES:
        for signal, hot in CLASSIFIERS[: 2 if smoke else None]:
            truths = population(signal, hot)
            where = f"accuracy {truths['accuracy']:.3f}" + (", overconfident" if hot > 1 else "")
            yield from simulate(partial(of_classifier, n, signal, hot), truths, where=where, n=n, runs=runs)
        for shift in SHIFTS[: 1 if smoke else None]:
            truths = pair_population(shift)
            yield from simulate(partial(of_pair, n, shift), truths, where=f"sets {shift} apart", n=n, runs=runs)


def promises(runs: int, *, n: int = 200, fresh: int = 2000) -> Iterator[Kept]:
    """Every promise, from `n` held-out samples; coverage is judged on `fresh` others."""

    def mean(what: str, promised: float, of_one: Callable[[torch.Generator], float]) -> Kept:
        seen = torch.tensor([of_one(torch.Generator().manual_seed(run)) for run in range(runs)], dtype=torch.float64)
        return Kept(what=what, promised=promised, seen=float(seen.mean()), error=float(seen.std() / runs**0.5))

    def accepted(keep: float, generator: torch.Generator) -> float:
        made = promise(torch.randn(n, generator=generator).double(), torch.zeros(n, dtype=torch.bool), keep=keep)
        return float((torch.randn(fresh, generator=generator).double() <= made.threshold).double().mean())

    def held_error(level: float, generator: torch.Generator) -> float:
        logits, labels = classifier(10 * n, 3.0, 1.0, generator)
        made = promise(-logits.softmax(1).amax(1), logits.argmax(1) != labels, max_error=level)
        logits, labels = big()
        inside = -logits.softmax(1).amax(1) <= made.threshold
        return float(float((logits.argmax(1) != labels)[inside].double().mean()) <= level)

    @cache
    def big() -> tuple[Tensor, Tensor]:
        return classifier(100_000, 3.0, 1.0, torch.Generator().manual_seed(5))

    def covered(name: str, error: float, generator: torch.Generator) -> float:
        made = CONFORMAL[name](*classifier(n, 1.5, 1.6, generator), error=error)
        logits, labels = classifier(fresh, 1.5, 1.6, generator)
        return float(made(logits)[torch.arange(fresh), labels].double().mean())

    def corrected(error: float, generator: torch.Generator) -> float:
        inputs = torch.rand(n + fresh, generator=generator).double()
        labels = inputs * torch.randn(n + fresh, generator=generator).double()
        low, high = -inputs, inputs  # too narrow: one standard deviation
        made = cqr.fit(low[:n], high[:n], labels[:n], error=error)
        low, high = made(low[n:], high[n:])
        return float(((low <= labels[n:]) & (labels[n:] <= high)).double().mean())

    for keep in (0.8, 0.95):
        yield mean(f"keep {keep}: share accepted", keep, partial(accepted, keep))
    for level in (0.02, 0.05):
        yield mean(f"max_error {level}: share of guards that hold it", 0.95, partial(held_error, level))
    for name in CONFORMAL:
        for error in (0.1, 0.05):
            yield mean(f"{name}, error {error}: coverage", 1 - error, partial(covered, name, error))
    yield mean("cqr, error 0.1: coverage", 0.9, partial(corrected, 0.1))


def summary(cells: list[Cell], kept: list[Kept]) -> dict[str, float]:
    """The extremes: of coverage where intervals are given, and of what promises have to spare in standard errors."""
    held = [cell.held for cell in cells if cell.given >= GIVEN]
    return {
        "lowest": round(min(held), 4),
        "highest": round(max(held), 4),
        "most_missed": round(max(cell.missed for cell in cells), 4),
        "promises_lowest_margin": round(min(item.seen - item.promised for item in kept), 4),
        "promises_lowest_margin_in_errors": round(
            min((item.seen - item.promised) / max(item.error, 1e-12) for item in kept), 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few data sets, some of the cells: under 30 seconds")
    parser.add_argument("--runs", type=int, default=1000, help="data sets a cell")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = 40 if options.smoke else options.runs
    console = Console()
    cells = list(intervals(runs, smoke=options.smoke))
    table = Table(title=f"95 % intervals, {runs} data sets a cell")
    for title in ("interval", "data", "n", "truth", "given", "held", "missed", "mean width"):
        table.add_column(title, justify="left" if title in ("interval", "data") else "right")
    for cell in sorted(cells, key=lambda item: (item.what, item.n)):
        held = f"{cell.held:.3f}" if cell.given >= GIVEN else "too few"
        row = (f"{cell.truth:.4f}", f"{cell.given:.2f}", held, f"{cell.missed:.3f}", f"{cell.width:.4f}")
        table.add_row(cell.what, cell.where, str(cell.n), *row)
    console.print(table)
    kept = list(promises(runs))
    table = Table(title="Promises")
    for title in ("promise", "promised", "seen", "± standard error"):
        table.add_column(title, justify="left" if title == "promise" else "right")
    for item in kept:
        table.add_row(item.what, f"{item.promised:.3f}", f"{item.seen:.4f}", f"{item.error:.4f}")
    console.print(table)
    print(json.dumps(summary(cells, kept)))


if __name__ == "__main__":
    main()
