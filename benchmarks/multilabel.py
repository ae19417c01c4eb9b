"""Do the promises of multi-label guards hold? 20 splits of a generated set, and of traffic signs by their attributes.

    CAVEAT_DATA=... python benchmarks/multilabel.py          # some minutes on two cores; the network is trained once

Of each split one half fits the guard (calibration, threshold, label sets), the other judges it. The generated network
is no true one: its logits are 2.5 times too large and noisy. The real one, a small convolutional network, sees German
traffic signs, of which each has some of 16 attributes (triangle, red border, speed limit, ...).

A promise holds in expectation over splits; in one split its figure varies. It counts as held where it is no further
from the promise than chance would bring it in one of a thousand splits, of a share of n fitted and m judged samples:
3.09 (p (1 - p) (1/n + 1/m))^½, p the promised share. A mean loss in [0, 1] varies no more than a share does. The means
are of 100 further splits, with their standard errors: they must hold without that. Last line: JSON.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from caveat import data
from caveat.guard.multilabel import MultilabelDecision, decide, score_of
from caveat.metrics.multilabel import mean_average_precision, missed_share_of_each
from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally_sets
from caveat.models import small_cnn
from caveat.scores import FROM_SIGMOIDS
from caveat.tensors import read_tensors, write_tensors

SPLITS, MORE = 20, 100
KEEP, ERROR = 0.95, 0.1
QUANTILE = 3.09
"""Of the normal distribution, exceeded in one of a thousand cases."""
SIGNS = {
    "triangle": [11, 13, *range(18, 32)],
    "circle": [*range(11), *range(15, 18), *range(32, 43)],
    "red border": [*range(6), *range(7, 12), 13, 15, 16, *range(18, 32)],
    "red ground": [14, 17],
    "blue ground": [*range(33, 41)],
    "prohibition": [*range(6), *range(7, 11), *range(15, 18)],
    "speed limit": [*range(6), 7, 8],
    "warning": [11, *range(18, 32)],
    "mandatory": [*range(33, 41)],
    "end of": [6, 32, 41, 42],
    "right of way": [11, 12, 13, 14],
    "number": [*range(9)],
    "passing": [9, 10, 41, 42],
    "lorry": [10, 16, 42],
    "direction": [19, 20, 21, *range(33, 40)],
    "people": [27, 28, 29],
}
"""The attributes of the 43 signs."""


def generated(seed: int, count: int, labels: int = 12) -> tuple[Tensor, Tensor]:
    """Logits of a network that is too sure and somewhat wrong, and labels, of which some inputs have none."""
    generator = torch.Generator().manual_seed(seed)
    true = 2 * torch.randn(count, labels, generator=generator, dtype=torch.float64) - 1.5
    here = torch.rand(count, labels, generator=generator) < torch.sigmoid(true)
    return (2.5 * (true + torch.randn(count, labels, generator=generator)))[None], here


def attributes(classes: Tensor) -> Tensor:
    table = torch.zeros(43, len(SIGNS), dtype=torch.bool)
    for column, signs in enumerate(SIGNS.values()):
        table[signs, column] = True
    return table[classes]


def network(cache: Path, epochs: int) -> nn.Module:
    """Trained on the attributes of 3,920 signs, or read from the cache."""
    model = small_cnn(classes=len(SIGNS), channels=3, size=32, generator=torch.Generator().manual_seed(0))
    if cache.exists():
        model.load_state_dict(read_tensors(cache))
        return model.eval()
    signs = data.load("gtsrb:train")
    images, classes = (torch.cat(part) for part in zip(*signs, strict=True))
    labels, generator = attributes(classes).float(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    write_tensors(cache, {name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    return model.eval()


def outputs(model: nn.Module, source: data.Source) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        found = [(model(images), classes) for images, classes in source]
    logits, classes = (torch.cat(part) for part in zip(*found, strict=True))
    return logits[None], classes


def judged(made: MultilabelDecision, logits: Tensor, labels: Tensor, fitted: tuple[int, int]) -> dict[str, float]:
    """What one split says: the share accepted, the share of labels missed among these, and whether both hold."""
    accepted = score_of(made.score, logits) <= made.promise.threshold
    there = accepted & labels.any(dim=1)
    kept = float(accepted.double().mean())
    missed = float(missed_share_of_each(made.control(made.probs(logits)), labels)[there].mean())

    def slack(share: float, one: int, other: int) -> float:
        return QUANTILE * math.sqrt(share * (1 - share) * (1 / one + 1 / other))

    return {
        "kept": kept, "missed": missed,
        "keep_held": kept >= KEEP - slack(KEEP, fitted[0], len(labels)),
        "error_held": missed <= ERROR + slack(ERROR, fitted[1], int(there.sum())),
    }  # fmt: skip


def split(logits: Tensor, labels: Tensor, rows: Tensor, other: Tensor, seed: int) -> dict[str, float]:
    made = decide(logits[:, rows], labels[rows], keep=KEEP, error=ERROR, seed=seed, names=list(map(str, range(99))))
    with_labels = len(made.true_samples[made.scores[made.true_samples] <= made.promise.threshold].unique())
    return judged(made, logits[:, other], labels[other], (len(made.reference), with_labels))


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    rows, further = rows[:SPLITS], rows[SPLITS:]
    mean: dict[str, float] = {}
    for name in ("kept", "missed"):
        values = torch.tensor([row[name] for row in further], dtype=torch.float64)
        mean |= {f"mean_{name}": float(values.mean()), f"error_{name}": float(values.std() / len(values) ** 0.5)}
    worst = {"least_kept": min(row["kept"] for row in rows), "most_missed": max(row["missed"] for row in rows)}
    held = {name: int(sum(row[name] for row in rows)) for name in ("keep_held", "error_held")}
    both = int(sum(row["keep_held"] and row["error_held"] for row in rows))
    return {name: round(value, 5) for name, value in (mean | worst).items()} | held | {"both_held": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caveat-signs.safetensors")
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    count = 4000
    rows = torch.arange(2 * count)
    made = [split(*generated(seed, 2 * count), rows[:count], rows[count:], seed) for seed in range(SPLITS + MORE)]
    found: dict[str, dict[str, float]] = {"generated": summary(made)}
    print("generated:", found["generated"], flush=True)
    model = network(options.cache, options.epochs)
    logits, classes = outputs(model, data.load("gtsrb:test"))
    labels = attributes(classes)
    halves = [
        torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)) for seed in range(SPLITS + MORE)
    ]
    middle = len(labels) // 2
    made = [split(logits, labels, order[:middle], order[middle:], seed) for seed, order in enumerate(halves)]
    found["signs"] = summary(made) | {"map": round(float(mean_average_precision(logits[0], labels)), 5)}
    print("signs:", found["signs"], flush=True)
    ood, _ = outputs(model, data.load("cifar10:test+sample=2000"))
    for name, score in FROM_SIGMOIDS.items():
        known, other = score(logits), score(ood)
        if known is not None and other is not None:
            found["signs"][f"auroc_{name}"] = round(float(auroc(tally_sets(known, other))), 5)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
