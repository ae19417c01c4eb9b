"""A disk that is full or turns read-only at some write of every command that writes: one line, nothing half-written.

Once where there was nothing, once where an older result of the same command lies; run again with room, all is well.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edges import full_disk
from tests.edges.audited_sets import importable
from tests.edges.fuzzed_files import AUDIT, MODEL, TRAINED, prepared
from tests.edges.test_fuzzed_files import FINDINGS

NEW = [
    [*AUDIT, "--ood", "near=noise:uniform", "-o", "out"],
    ["report", "audit", "-o", "out.html"],
    ["compare", "audit", "other", "-o", "out.html"],
    ["guard", "fit", "audit", "-o", "out", "--score", "msp"],
    ["guard", "run", "guard", "npz:few.npz", "--model", MODEL, "-o", "out.parquet"],
    ["guard", "run", "guard", "npz:few.npz", "--model", MODEL, "-o", "out", "--rows", "20"],
    ["guard", "tune", "guard", "--keep", "0.7"],
    [*TRAINED[:-1], "trained-anew"],
]
OLD = [
    [*AUDIT, "--weights", "trained/model.safetensors", "-o", "other"],
    ["guard", "fit", "audit", "-o", "guard", "--score", "msp", "--keep", "0.6"],
]


def test_a_full_or_read_only_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    monkeypatch.setenv("CAVEAT_DATA", ".")
    with importable(base):
        prepared(base, FINDINGS.read_text(encoding="utf-8"))
    asked = {
        "start": base, "copies": tmp_path, "commands": [*NEW, *OLD], "preload": [NEW[-1]], "points": 1,
        "sizes": [100], "pages": False,
    }  # fmt: skip
    root = str(Path(full_disk.__file__).parents[2])
    made = subprocess.run(
        [sys.executable, full_disk.__file__], input=json.dumps(asked, default=str), capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    found = json.loads(made.stdout)
    assert {name: fault for name, fault in found.items() if fault} == {}
    assert len(found) >= 20
