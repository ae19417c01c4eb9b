"""A million inputs through `caveat guard run`: is its memory flat, and is a run that was killed the run that was not?

    python benchmarks/stream.py [--kind pictures] [--count 1000000] [--rows 50000] [--kills 10]

Fits a guard of a small network and answers generated 28x28 pictures, rows of eight numbers in a file (`--kind csv`,
`parquet`) or texts (`jsonl`), once undisturbed, while the memory of the process is looked at, and once killed with
SIGKILL at random moments and begun again each time. Then the two folders are compared byte by byte. The last line is
JSON.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

import caveat
from caveat import data
from caveat.cli.model import load
from caveat.guard.written import files
from caveat.training.recipe import train

TABLE = "caveat.models:mlp(channels=8, size=1, classes=3, hidden=(64,))"
MODELS = {
    "pictures": "caveat.models:mlp(size=28, hidden=(64,))", "csv": TABLE, "parquet": TABLE,
    "jsonl": "caveat.models:text_classifier(classes=3, buckets=1024, width=16)",
}  # fmt: skip


def fit(folder: Path, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    network: Any = load(MODELS[kind])
    labels = torch.randint(3, (1000,), generator=generator)
    held_out: Any = (torch.randn(1000, 8, generator=generator), labels)
    if kind == "pictures":
        train(network, data.load("mnist5k:train"), epochs=1, rate=2e-3, batch=128, generator=generator)
        held_out = list(data.load("mnist5k:test"))
    elif kind == "jsonl":
        told = tuple(text(row) for row in range(1000))
        held_out = data.bound(data.Texts("texts", told, labels, None, 256), network)
    caveat.Guard.fit(network.eval(), held_out, score="energy", keep=0.95).save(folder)


def text(row: int) -> str:
    return f"the {row}th of many texts, of {row % 17} and {row % 23}, and no two of them are the same"


def written(place: Path, kind: str, count: int) -> str:
    """The set as `guard run` is told of it, in a file where it is not generated."""
    if kind == "pictures":
        return f"noise:uniform+count={count}"
    path = place / f"new.{kind}"
    if kind == "jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps({"text": text(row), "label": row % 3}) + "\n" for row in range(count))
        return f"jsonl:{path}"
    numbers = np.random.default_rng(0).standard_normal((count, 8))
    table = pa.table({**{f"x{k}": numbers[:, k] for k in range(8)}, "label": np.arange(count) % 3})
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=100_000)
    return f"{kind}:{path}"


def begun(guard: Path, told: tuple[str, str], rows: int, output: Path) -> subprocess.Popen[str]:
    words = ["guard", "run", guard, told[0], "--model", told[1], "-o", output, "--rows", rows]
    return subprocess.Popen(
        [sys.executable, "-m", "caveat", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def memory(process: subprocess.Popen[str]) -> float:
    """Megabytes that a process holds now."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


def parts(folder: Path) -> int:
    return len(list(folder.glob("verdicts-*.parquet")))


def undisturbed(
    guard: Path, told: tuple[str, str], rows: int, output: Path
) -> tuple[list[tuple[int, float]], float, str]:
    """The memory after each part (parts, megabytes at most meanwhile), seconds, and what was said."""
    process, curve, started = begun(guard, told, rows, output), list[tuple[int, float]](), time.perf_counter()
    while process.poll() is None:
        done, now = parts(output), memory(process)
        if curve and curve[-1][0] == done:
            curve[-1] = (done, max(curve[-1][1], now))
        else:
            curve.append((done, now))
        time.sleep(0.05)
    said, error = process.communicate()
    if process.returncode:
        raise SystemExit(error)
    return curve, time.perf_counter() - started, said.splitlines()[0]


def killed(guard: Path, told: tuple[str, str], rows: int, output: Path, moments: list[int]) -> str:
    """The same, killed when so many parts (and some of the next) were there; what the last run said."""
    for moment in moments:
        process = begun(guard, told, rows, output)
        while parts(output) < moment and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.random() / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"killed with {parts(output)} parts there")
    process = begun(guard, told, rows, output)
    said, error = process.communicate()
    if process.returncode:
        raise SystemExit(error)
    return said.splitlines()[0]


def counts(said: str) -> str:
    """Without the example, which is one that the last run came across."""
    return said.split(" For instance")[0].strip()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kind", choices=list(MODELS), default="pictures")
    options.add_argument("--count", type=int, default=1_000_000)
    options.add_argument("--rows", type=int, default=50_000)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        fit(place / "guard", given.kind)
        told = written(place, given.kind, given.count), MODELS[given.kind]
        curve, seconds, said = undisturbed(place / "guard", told, given.rows, place / "one")
        for done, peak in curve:
            print(f"{done:4d} parts, {peak:7.1f} MB  " + "#" * round(peak / 10))
        moments = sorted(int(random.random() * given.count / given.rows) for _ in range(given.kills))
        again = killed(place / "guard", told, given.rows, place / "killed", moments)
        rows = [
            row for file in files(place / "killed") for row in pq.read_table(file, columns=["index"])[0].to_pylist()
        ]
        peaks = [peak for done, peak in curve if done]
        print(
            json.dumps(
                {
                    "kind": given.kind, "count": given.count, "parts": parts(place / "one"),
                    "per_second": round(given.count / seconds),
                    "mb_early": round(peaks[0], 1), "mb_late": round(max(peaks[len(peaks) // 2 :]), 1),
                    "kills": given.kills, "same_files": digests(place / "one") == digests(place / "killed"),
                    "none_lost_or_doubled": rows == list(range(given.count)),
                    "same_counts": counts(said) == counts(again),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
