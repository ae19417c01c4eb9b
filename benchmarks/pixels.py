"""What a dense audit keeps of CamVid's test set, and what that costs: bytes of state, time, and the exact figures.

    python benchmarks/pixels.py [--pictures 233] [--draws 4] [--size 360x480]

A network of the size of ENet (untrained but for 40 steps, so that its answers are not all alike) audits the test set
(`CamVid` under CAVEAT_DATA; drawn scenes without it). Streamed ECE, AURC and AUROC stand beside those of all pixels
held in memory, on the first pictures. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from caveat.audits.dense.audit import audit_dense
from caveat.audits.dense.counts import Counts, Sums
from caveat.audits.dense.pictures import Plan, answers
from caveat.data import scenes as sets
from caveat.data.segmentation import open_camvid
from caveat.errors import DataError
from caveat.metrics import calibration, ranking, selective
from caveat.metrics.tally import quantile_edges, tally
from caveat.models import enet
from caveat.objectives import pixel_cross_entropy
from caveat.posteriors import Predictive, dropout
from caveat.scores import FROM_DRAWS, FROM_LOGITS, FROM_RAW_LOGITS
from caveat.studies.kit.toy_scenes import write_toy_camvid
from caveat.training import fit

OOD = ("pedestrian", "bicyclist", "car")
EXACT = 8


def opened(folder: Path, size: tuple[int, int]) -> tuple[sets.Scenes, sets.Scenes]:
    try:
        return tuple(open_camvid(split, ood=OOD, size=size, batch=2) for split in ("train", "test"))
    except DataError:
        write_toy_camvid(folder)
        return tuple(open_camvid(split, root=folder, ood=OOD, batch=2) for split in ("train", "test"))


def trained(train: sets.Scenes) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = enet(classes=len(train.classes), generator=generator)
    batches = sets.shuffled_scenes(sets.first(train, min(20, len(train))), batch=2, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    fit(model, batches, pixel_cross_entropy, optimizer=optimizer, epochs=4, generator=generator, progress=False)
    return model.eval()


def held(model: torch.nn.Module, test: sets.Scenes) -> dict[str, float]:
    """ECE of the known, AURC and AUROC of the maximum softmax probability, from all pixels in memory."""
    plan = Plan(model, test, ("msp",), test.void, {k: torch.tensor(v) for k, v in test.ood.items()})
    parts = [(plan.scored(a)["msp"], plan.group(a), a.logits, a.labels) for a in answers(plan)]
    score, group, logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    known = (group == 0) | (group == 1)
    seen = tally(score[known], group[known] == 1)
    kind = min(int(g) for g in group.unique() if g >= 2)  # the first that there is
    kept = known | (group == kind)
    return {
        "ece": float(calibration.ece(calibration.confidence_bins(logits[known].double().softmax(1), labels[known]))),
        "aurc": float(selective.aurc(seen)),
        "auroc": float(ranking.auroc(tally(score[kept], group[kept] == kind))),
    }


def streamed(model: torch.nn.Module, test: sets.Scenes) -> dict[str, float]:
    record = audit_dense(model, test, scores=["msp"], replicas=2, scenes=0)
    return {
        "ece": record.calibrations[0].summary.ece.value,
        "aurc": record.selective[0].aurc.value,
        "auroc": record.detections[0].auroc.value,
    }


def state_of(names: int, classes: int, kinds: int) -> int:
    """Bytes of one ECE, and of the counts of every score, at their full number of bins."""
    counts = Counts(quantile_edges(torch.linspace(0, 1, 100_000), bins=1024), tuple(map(str, range(kinds))))
    sums = Sums()
    sums.add(torch.randn(100, classes, generator=torch.Generator().manual_seed(0)), torch.arange(100) % classes)
    return names * counts.nbytes() + 2 * sums.nbytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a dense audit keeps and costs.")
    parser.add_argument("--pictures", type=int, default=233)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--size", default="360x480")
    options = parser.parse_args()
    torch.set_num_threads(1)
    height, width = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        train, test = opened(Path(folder), (height, width))
        test = sets.first(test, min(options.pictures, len(test)))
        model = trained(train)
        pictures = sum(1 for _ in test)  # decoding alone, to warm the files up
        few = sets.first(test, min(EXACT, len(test)))
        exact, ours = held(model, few), streamed(model, few)
        started = time.perf_counter()
        with torch.inference_mode():
            for inputs, _ in test:
                model(inputs)
        forward = time.perf_counter() - started
        started = time.perf_counter()
        record = audit_dense(model, test, replicas=20)
        plain = time.perf_counter() - started
        started = time.perf_counter()
        audit_dense(Predictive(model, dropout.of(model), draws=options.draws).eval(), few, replicas=2)
        drawn = (time.perf_counter() - started) / len(few)
    del pictures
    every = len(FROM_LOGITS) + len(FROM_RAW_LOGITS)
    state = state_of(1, len(train.classes), len(OOD)) / 1e6
    whole = state_of(every + len(FROM_DRAWS), len(train.classes), len(OOD)) / 1e6
    table = Table(title=f"{len(test)} pictures of {test.size}: {record.split.split(' ')[0]} known pixels")
    for column in ("figure", "all pixels held", "streamed"):
        table.add_column(column)
    for name, value in exact.items():
        table.add_row(name, f"{value:.6f}", f"{ours[name]:.6f}")
    console = Console()
    console.print(table)
    console.print(f"state: ECE and AURC {state:.3f} MB; all {every + len(FROM_DRAWS)} scores {whole:.3f} MB")
    console.print(f"two streamed passes over one plain forward pass: {plain / forward:.2f}; {drawn:.2f} s a picture of "
                  f"{options.draws} draws")  # fmt: skip
    print(json.dumps({
        "state_mb": round(state, 4), "state_mb_all_scores": round(whole, 4), "pictures": len(test),
        "audit_over_forward": round(plain / forward, 2), "audit_seconds": round(plain, 1),
        "ece_error": abs(exact["ece"] - ours["ece"]), "aurc_error": abs(exact["aurc"] - ours["aurc"]),
        "auroc_error": abs(exact["auroc"] - ours["auroc"]), "seconds_a_picture_with_draws": round(drawn, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
