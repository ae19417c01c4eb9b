"""A million pictures through `caveat guard run`: is its memory flat, and is a run that was killed the run that was not?

    python benchmarks/stream.py [--count 1000000] [--rows 50000] [--kills 10]

Fits a guard of a small network on 4,000 digits and answers generated 28x28 pictures, once undisturbed, while the memory
of the process is looked at, and once killed with SIGKILL at random moments and begun again each time. Then the two
folders are compared byte by byte. The last line is JSON.
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

import pyarrow.parquet as pq
import torch

import caveat
from caveat import data, models
from caveat.guard.written import files
from caveat.training.recipe import train

MODEL = "caveat.models:mlp(size=28, hidden=(64,))"


def fit(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = models.mlp(size=28, hidden=(64,), generator=generator)
    train(network, data.load("mnist5k:train"), epochs=1, rate=2e-3, batch=128, generator=generator)
    caveat.Guard.fit(network.eval(), list(data.load("mnist5k:test")), score="energy", keep=0.95).save(folder)


def begun(guard: Path, count: int, rows: int, output: Path) -> subprocess.Popen[str]:
    words = ["guard", "run", guard, f"noise:uniform+count={count}", "--model", MODEL, "-o", output, "--rows", rows]
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


def undisturbed(guard: Path, count: int, rows: int, output: Path) -> tuple[list[tuple[int, float]], float, str]:
    """The memory after each part (parts, megabytes at most meanwhile), seconds, and what was said."""
    process, curve, started = begun(guard, count, rows, output), list[tuple[int, float]](), time.perf_counter()
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


def killed(guard: Path, count: int, rows: int, output: Path, moments: list[float]) -> str:
    """The same, killed when a share of the parts (and some of the next) was there; what the last run said."""
    for moment in moments:
        process = begun(guard, count, rows, output)
        while parts(output) < int(moment * count / rows) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.random() / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"killed with {parts(output)} parts there")
    process = begun(guard, count, rows, output)
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
    options.add_argument("--count", type=int, default=1_000_000)
    options.add_argument("--rows", type=int, default=50_000)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        fit(place / "guard")
        curve, seconds, said = undisturbed(place / "guard", given.count, given.rows, place / "one")
        for done, peak in curve:
            print(f"{done:4d} parts, {peak:7.1f} MB  " + "#" * round(peak / 10))
        moments = sorted(random.random() for _ in range(given.kills))
        again = killed(place / "guard", given.count, given.rows, place / "killed", moments)
        rows = [
            row for file in files(place / "killed") for row in pq.read_table(file, columns=["index"])[0].to_pylist()
        ]
        peaks = [peak for done, peak in curve if done]
        print(
            json.dumps(
                {
                    "count": given.count, "parts": parts(place / "one"), "per_second": round(given.count / seconds),
                    "mb_early": round(peaks[0], 1), "mb_late": round(max(peaks[len(peaks) // 2 :]), 1),
                    "kills": given.kills, "same_files": digests(place / "one") == digests(place / "killed"),
                    "none_lost_or_doubled": rows == list(range(given.count)),
                    "same_counts": counts(said) == counts(again),
                }
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
