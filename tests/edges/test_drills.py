"""SIGKILL at every rename and unlink, and two processes on one output: what is left is old, new or refused.

The commands run in forked processes (`drill.py`) over a folder in which an older run of another network ended well.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from caveat.errors import CaveatError
from caveat.files import alone
from tests.edges import drill

MODEL = "caveat.models:mlp(size=8, hidden=(16,))"
FEW = ("--score", "msp", "--calibration", "temperature", "--replicas", "5")


def train(seed: int, out: str) -> list[str]:
    return [
        "train", "--model", MODEL, "--data", "digits:train+first=400", "--epochs", "2", "--seed", str(seed),
        "--no-audit", "--track", "swag", "-o", out,
    ]  # fmt: skip


def audit(weights: str, out: str = "audit") -> list[str]:
    return ["audit", "--model", MODEL, "--weights", f"{weights}/model.safetensors", "--test", "digits:test+first=300",
            "--ood", "noise=noise:uniform", *FEW, "-o", out]  # fmt: skip


AUDIT_OF_NEW = ["audit", "--model", MODEL, "--test", "digits:test+first=300", *FEW, "-o", "audit"]
NEW = ["guard", "fit", "audit", "-o", "new"]
FIT = ["guard", "fit", "audit", "-o", "guard"]
RUN = ["guard", "run", "guard", "digits:test+first=100", "--model", MODEL, "-o", "verdicts.parquet"]
PARTS = [*RUN[:-1], "parts", "--rows", "30"]
TUNE = ["guard", "tune", "guard", "--keep", "0.8"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `drill.py` saw, by job; all jobs in one process, which imports torch once."""
    base = tmp_path_factory.mktemp("base")
    trained, audited, both = base / "trained", base / "audited", base / "both"
    trained.mkdir()
    before = [
        {"prepare": trained, "commands": [train(1, "a"), train(2, "b")]},
        {"prepare": audited, "copy": trained, "commands": [audit("a"), FIT, RUN]},
        {"prepare": both, "copy": audited, "commands": [audit("b")]},  # the guard is still that of a
    ]
    jobs = {
        "train": {"start": trained, "command": train(3, "c"), "after": [train(3, "c")], "most": 8,
                  "sizes": ["c/model.safetensors", "c/swag.safetensors"]},
        "audit": {"start": audited, "command": audit("b"), "after": [NEW, audit("b")],
                  "most": 8},
        "fit": {"start": both, "command": FIT, "after": [RUN, FIT], "most": 12},
        "tune": {"start": both, "command": TUNE, "after": [RUN], "most": 4},
        "run": {"start": both, "command": RUN, "after": [RUN], "most": 4},
        "parts": {"start": both, "command": PARTS, "after": [PARTS], "most": 6},
        "two audits": {"start": audited, "commands": [audit("a"), audit("b")], "times": 3,
                       "after": [NEW]},
        "two trainings": {"start": trained, "commands": [train(3, "c"), train(4, "c")], "times": 2,
                          "after": [train(3, "c"), train(4, "c")]},
        "two fits": {"start": both, "commands": [FIT, [*FIT, "--keep", "0.8"], RUN], "times": 3, "after": [RUN]},
        "two runs": {"start": both, "commands": [RUN, RUN], "times": 3, "after": []},
    }  # fmt: skip
    asked = {"preload": [train(1, "a"), AUDIT_OF_NEW], "jobs": [*before, *jobs.values()]}
    made = subprocess.run(
        [sys.executable, drill.__file__], input=json.dumps(asked, default=str), capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(drill.__file__).parents[2]), *sys.path])},
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    found = json.loads(made.stdout)
    assert [row["code"] for rows in found[: len(before)] for row in rows] == [0] * 6
    return dict(zip(jobs, found[len(before) :], strict=True))


def below(files: dict[str, str], folder: str) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.startswith(f"{folder}/")}


def whole(files: dict[str, str]) -> bool:
    return not any(name.endswith(".tmp") for name in files)


def weights_of(files: dict[str, str], guard: str) -> str:
    return next(name for name in below(files, guard) if "model-" in name)


def test_a_killed_training_goes_on_to_the_same_weights(rows: dict[str, Any]) -> None:
    """Up to rounding: two processes place arrays differently, and sums may then differ in the last digit."""
    undisturbed = rows["train"][0]["sizes"]
    assert len(rows["train"]) >= 6
    for row in rows["train"][1:]:
        again = row["after"][0]
        assert again["code"] == 0
        assert whole(again["files"])
        for name in ("c/model.safetensors", "c/swag.safetensors"):
            assert again["sizes"][name] == pytest.approx(undisturbed[name], rel=1e-4, abs=1e-5), row["point"]


def test_a_killed_audit_gives_no_guard_of_two_networks(rows: dict[str, Any]) -> None:
    """Until the record is written `guard fit` refuses, then it is the new network's; audited again all is as if new."""
    first = rows["audit"][0]
    new = weights_of(first["after"][0]["files"], "new")
    old = weights_of(first["left"], "guard")
    assert new != old
    told = []
    for row in rows["audit"][1:]:
        fit, again = row["after"]
        assert again["code"] == 0
        assert whole(again["files"])
        for name, digest in below(first["left"], "audit/observations").items():
            if name.endswith(".safetensors"):
                assert again["files"][name] == digest, (row["point"], name)
        recorded_new = row["left"]["audit/record.json"] != first_record(rows)
        if fit["code"] == 0:
            assert weights_of(fit["files"], "new").split("/")[1] == (new if recorded_new else old).split("/")[1]
        else:
            assert fit["code"] == 2
            assert not below(fit["files"], "new")
        told.append(fit["code"])
    assert {0, 2} == set(told)


def first_record(rows: dict[str, Any]) -> str:
    """Hash of the record of the older audit, which every fit began from."""
    return rows["audit"][1]["left"]["audit/record.json"]  # killed at the first rename: nothing has changed yet


def test_killed_parts_of_verdicts_go_on_to_the_same_files(rows: dict[str, Any]) -> None:
    first = rows["parts"][0]
    assert first["code"] == 0
    done = below(first["left"], "parts")
    assert len(done) == 4
    assert len(rows["parts"]) == 5  # undisturbed, and killed before each of them stood in its place
    for row in rows["parts"][1:]:
        left = below(row["left"], "parts")
        assert {name: digest for name, digest in left.items() if name.endswith(".parquet")}.items() <= done.items()
        assert row["after"][0]["code"] == 0
        assert below(row["after"][0]["files"], "parts") == done


@pytest.mark.parametrize("name", ["fit", "tune", "run"])
def test_a_killed_fit_leaves_the_old_guard_or_the_new(rows: dict[str, Any], name: str) -> None:
    done = rows[name][0]
    assert done["code"] == 0
    assert len(rows[name]) >= 2
    before = rows[name][1]["left"]
    for row in rows[name][1:]:
        for place in ("guard/manifest.json", "verdicts.parquet"):
            assert row["left"][place] in {before[place], *([done["left"][place]] if name == "run" else [])} or (
                name != "run" and row["left"][place] != before[place] and row["after"][0]["code"] == 0
            )
        assert all(again["code"] == 0 for again in row["after"])
        last = row["after"][-1]["files"]
        if name != "tune":  # the temporary file of a killed tune is swept by the next one that writes
            assert whole(last)
        assert len(below(last, "guard")) == 3 + (not whole(last))


@pytest.mark.parametrize("name", ["two audits", "two trainings", "two fits", "two runs"])
def test_two_at_once_end_in_one_result_or_a_refusal(rows: dict[str, Any], name: str) -> None:
    for row in rows[name]:
        assert 0 in row["codes"]
        assert set(row["codes"]) <= {0, 2}
        assert whole(row["left"])
        assert any(again["code"] == 0 for again in row["after"]) or not row["after"]
        if name == "two audits":
            assert sorted(row["codes"]) == [0, 2]
        if name == "two trainings":  # the one that came first goes on, the other belongs elsewhere
            assert [again["code"] for again in row["after"]] == ([0, 2] if row["codes"] == [0, 2] else [2, 0])


def test_a_lock_is_released_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    with alone(tmp_path / "out"):
        with pytest.raises(CaveatError, match="another process of Caveat is writing to"), alone(tmp_path / "out"):
            pass
        (tmp_path / "out" / "result").write_text("1")
    with alone(tmp_path / "out"), alone(tmp_path / "other"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
