"""Hostile sets, damaged files and full disks, as many as wanted: what the tests of `tests/edges/` draw a part of.

`python benchmarks/drills.py --runs 2000`: every hostile set, `--runs` damaged files, and a disk that is full or
read-only at many writes of every command that writes; as root also a real file system of 300 kB. Every page is written
in full. Faults are printed; the last line is JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
from tests.edges import audited_sets, full_disk, fuzzed_files
from tests.edges.command import run
from tests.edges.test_full_disk import NEW, OLD
from tests.edges.test_fuzzed_files import FINDINGS

ROOT = Path(__file__).resolve().parents[1]


def sets(place: Path, seed: int) -> tuple[int, dict[str, str]]:
    """What was wrong with audits of hostile sets, and how many there were."""
    cases, found = audited_sets.all_sets(seed), dict[str, str]()
    for number, case in enumerate(cases):
        folder = place / str(number) / "user"
        folder.mkdir(parents=True)
        os.environ["CAVEAT_DATA"] = str(folder)
        found[f"set {case.name}"] = audited_sets.fault(case, folder)
        shutil.rmtree(folder.parent)
    return len(cases), found


def damaged(base: Path, work: Path, seed: int, count: int) -> dict[str, str]:
    """What was wrong with commands that read damaged files."""
    right = fuzzed_files.answers(base, work / "right")
    return {str(fuzz): fuzzed_files.fault(fuzz, base, work / "one", right) for fuzz in fuzzed_files.fuzzes(seed, count)}


def full(base: Path, copies: Path, points: int) -> dict[str, str]:
    """What was wrong with commands that could not write, in a process that has not used torch yet."""
    job = {
        "start": str(base), "copies": str(copies), "commands": [*NEW, *OLD], "preload": [NEW[6]], "points": points,
        "sizes": [0, 100, 3000, 30_000], "pages": True,
    }  # fmt: skip
    made = subprocess.run(
        [sys.executable, full_disk.__file__], input=json.dumps(job), capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    return json.loads(made.stdout)


@contextmanager
def small_disk(place: Path) -> Generator[bool]:
    """A file system of 300 kB at `place`, where one can be had."""
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    there = os.geteuid() == 0 and subprocess.run(line, capture_output=True, check=False).returncode == 0
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", str(place)], check=True)


def really_full(base: Path, disk: Path) -> dict[str, str]:
    """What was wrong with commands that filled the file system `disk`; the last one fits."""
    found: dict[str, str] = {}
    os.chdir(base)
    for line in (*NEW[:3], NEW[6], NEW[4]):
        ended = run(
            *[str(disk / word) if before == "-o" else word for before, word in zip(["", *line], line, strict=False)]
        )
        left = [path.name for path in disk.rglob("*.tmp")]
        found[f"300 kB: {' '.join(line)}"] = ended.fault or (f"left: {left}" if left else "")
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=550, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=6, help="writes of each command at which the disk is full")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        count, faults = sets(place / "sets", asked.seed)
        base = place / "base"
        base.mkdir()
        os.environ["CAVEAT_DATA"] = "."
        with audited_sets.importable(base):
            fuzzed_files.prepared(base, FINDINGS.read_text(encoding="utf-8"))
            faults |= damaged(base, place, asked.seed, asked.runs)
            tried = full(base, place, asked.points)
            with small_disk(place / "disk") as there:
                tried |= really_full(base, place / "disk") if there else {}
            os.chdir(ROOT)
    faults = {name: fault for name, fault in (faults | tried).items() if fault}
    for name, fault in faults.items():
        print(f"{name}: {fault}")
    print(json.dumps({"sets": count, "damaged": asked.runs, "full": len(tried), "faults": len(faults)}))


if __name__ == "__main__":
    main()
