"""Does a guard keep its promise? Over 20 random splits of in-distribution data: fitted on one half, judged on the
other.

    python benchmarks/guard.py [AUDIT ...]     folders of audits, whose observations are used again

Without folders a small network is trained on the 5,000 digits of the demo first. Prints, per promise, the mean share
of fresh in-distribution inputs that is accepted, its range, in how many splits it is within its binomial 95 %
interval, and the error among the accepted; the last line is JSON. A guard has only half of the in-distribution data
here: its threshold rests on a quarter of them, which is part of the spread and of the interval.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from caveat.audits import cache
from caveat.errors import OptionError
from caveat.guard import decision
from caveat.heads import HeadLayer
from caveat.observations import Observations

SPLITS = 20
PROMISES: tuple[dict[str, float], ...] = ({"keep": 0.95}, {"keep": 0.8}, {"max_error": 0.02}, {"max_error": 0.005})


def judge(
    known: Observations, fit: Observations | None, head: HeadLayer | None, score: str, promise: dict[str, float]
) -> dict[str, float | str]:
    shares, errors, inside, refused = [], [], 0, ""
    for seed in range(SPLITS):
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(1000 + seed))
        first, fresh = known.part(order[: len(known) // 2]), known.part(order[len(known) // 2 :])
        try:
            made = decision.fit(first, fit, head, score=score, keep=promise.get("keep"),
                                max_error=promise.get("max_error"), seed=seed)  # fmt: skip
        except OptionError as error:
            refused = str(error)
            continue
        accepted = made.score(fresh).double() <= made.promise.threshold
        wrong = made.calibrated(fresh.logits).argmax(dim=1) != fresh.labels
        share, error = float(accepted.double().mean()), float(wrong[accepted].double().mean())
        shares.append(share)
        errors.append(error)
        if "keep" in promise:
            level, m, n = promise["keep"], len(first) - len(first) // 2, len(fresh)
            inside += abs(share - level) <= 1.96 * (level * (1 - level) * (1 / m + 1 / n)) ** 0.5 + 1 / m
        else:
            inside += error <= promise["max_error"]
    held = len(shares)
    return {
        "promise": " ".join(f"{k}={v}" for k, v in promise.items()), "splits": held, "within": inside,
        "accepted": sum(shares) / held if held else float("nan"), "least": min(shares, default=float("nan")),
        "most": max(shares, default=float("nan")), "error": sum(errors) / held if held else float("nan"),
        "refused": refused,
    }  # fmt: skip


def demo(folder: Path) -> Path:
    from caveat import audit, data, models
    from caveat.training.recipe import train

    training, test = data.load("mnist5k:train"), data.load("mnist5k:test")
    generator = torch.Generator().manual_seed(0)
    network = models.small_cnn(generator=generator)
    train(network, training, epochs=4, rate=2e-3, batch=128, generator=generator)
    audit(network.eval(), test, train=training, replicas=10, folder=folder)
    return folder


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("audits", nargs="*", type=Path)
    options.add_argument("--score", nargs="*", default=["msp", "knn"])
    chosen = options.parse_args()
    found: dict[str, list[dict[str, float | str]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for folder in chosen.audits or [demo(Path(temporary) / "mnist5k")]:
            known, fit, head, _ = cache.load(cache.folder(folder))
            for score in chosen.score:
                name = f"{folder.name} {score}"
                found[name] = [judge(known, fit, head, score, promise) for promise in PROMISES]
                table = Table(title=f"{name}: {len(known)} in-distribution samples, {SPLITS} splits")
                for column in ("promise", "splits", "within", "accepted", "least", "most", "error", "refused"):
                    table.add_column(column)
                for row in found[name]:
                    table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
                Console(width=160).print(table)
    print(json.dumps({"guard": {name: {str(r["promise"]): r["within"] for r in rows} for name, rows in found.items()}}))


if __name__ == "__main__":
    main()
