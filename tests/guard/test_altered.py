"""Every artefact of a guard, with each file altered, swapped, removed, of a newer schema, or a pickle: refused in a
sentence, and never executed."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.audits.test_regression import Line, data
from tests.guard.test_watching import guard as fitted
from tests.guard.test_watching import inputs, write
from torch import nn

from caveat.errors import DataError
from caveat.guard import Guard, artefact, regression_artefact
from caveat.guard.regression import RegressionGuard
from caveat.guard.watching import STATE, watch
from caveat.records.base import digest

guard = fitted
ROLES = ["manifest", "guard", "model"]


class Evil:
    """What runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def pickled(data: bytes, mark: Path) -> bytes:
    return pickle.dumps(Evil(mark))


def zipped(data: bytes, mark: Path) -> bytes:
    """As torch.save writes it."""
    torch.save({"reference": Evil(mark)}, mark.with_suffix(".pt"))
    return mark.with_suffix(".pt").read_bytes()


def altered(data: bytes, mark: Path) -> bytes:
    """A digit or byte near the end: of tensors a value, of a manifest its hash."""
    place = len(data) - 9
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


WAYS: dict[str, Callable[[bytes, Path], bytes]] = {
    "a pickle": pickled,
    "a file of torch": zipped,
    "altered": altered,
    "cut": lambda data, _: data[: len(data) // 2],
    "longer": lambda data, _: data + b" \n",
    "empty": lambda data, _: b"",
}


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = RegressionGuard.fit(Line().eval(), data(), outputs="gaussian_std", keep=0.9, error=0.2)
    folder = tmp_path_factory.mktemp("regression") / "guard"
    made.save(folder)
    return folder


def load(folder: Path) -> None:
    """As what it is."""
    if "regression" in str(folder):
        regression_artefact.load(folder, Line())
    else:
        artefact.load(folder, nn.Linear(4, 3, bias=False))


def file(folder: Path, role: str) -> Path:
    (found,) = folder.glob(f"{role}*")
    return found


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("role", ROLES)
def test_a_changed_file_of_a_guard_is_refused_and_not_run(
    guard: tuple[Guard, Path], regression: Path, role: str, task: str, tmp_path: Path
) -> None:
    folder = tmp_path / task
    shutil.copytree({"classification": guard[1], "regression": regression}[task], folder)
    load(folder)
    path, mark = file(folder, role), tmp_path / "ran"
    whole = path.read_bytes()
    for name, way in WAYS.items():
        if (name, role) == ("longer", "manifest"):
            continue  # spaces behind JSON change nothing that it says
        path.write_bytes(way(whole, mark))
        with pytest.raises(DataError, match="guard"):
            load(folder)
        assert not mark.exists(), name
    for other in {*ROLES} - {role}:
        path.write_bytes(file(folder, other).read_bytes())
        with pytest.raises(DataError, match="guard"):
            load(folder)
    path.unlink()
    with pytest.raises(DataError, match="guard"):
        load(folder)


@pytest.mark.parametrize("role", ROLES)
def test_a_file_of_another_guard_is_refused(guard: tuple[Guard, Path], role: str, tmp_path: Path) -> None:
    made, folder = guard[0], tmp_path / "guard"
    shutil.copytree(guard[1], folder)
    model = nn.Linear(4, 3, bias=False)
    model.weight = nn.Parameter(2 * torch.eye(3, 4), requires_grad=False)
    Guard.fit(model.eval(), inputs(800, 1), keep=0.9, score="msp").save(tmp_path / "other")
    file(folder, role).write_bytes(file(tmp_path / "other", role).read_bytes())
    with pytest.raises(DataError, match="guard"):
        artefact.load(folder, made.model)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_newer_schema_is_refused_with_what_to_do(
    guard: tuple[Guard, Path], regression: Path, task: str, tmp_path: Path
) -> None:
    folder = tmp_path / task
    shutil.copytree({"classification": guard[1], "regression": regression}[task], folder)
    path = folder / "manifest.json"
    newer = json.loads(path.read_text()) | {"schema_version": 3, "digest": ""}
    path.write_text(json.dumps(newer | {"digest": digest(newer)}))  # as a later version would write it
    with pytest.raises(DataError, match=r"is of schema 3, and this Caveat reads schema \d: update Caveat"):
        load(folder)


def test_a_changed_state_of_a_monitor_is_refused_and_not_run(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    write(made, tmp_path / "verdicts" / "a.parquet", 1, 200)
    state, mark = tmp_path / "state", tmp_path / "ran"
    state.mkdir()

    def again() -> None:
        watch(folder, tmp_path / "verdicts", state)

    again()
    path = state / STATE
    whole = path.read_text()
    again()
    for name, way in WAYS.items():
        if name == "longer":
            continue
        path.write_bytes(way(whole.encode(), mark))
        with pytest.raises(DataError, match="state"):
            again()
        assert not mark.exists()
    taken = json.loads(whole)["taken"]  # files that are as they were are not read again: what is said of them counts
    for change in (
        {"schema_version": 1},
        {"guard": "0" * 64},
        {"taken": taken | {"labelled": 7}},
        {"sha256": "0" * 64},
    ):
        path.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(DataError, match=r"state|verdicts"):
            again()
    for part in ("capital", "lowest", "needed"):  # evidence that is taken away, without a trace in the counts
        told = json.loads(whole)
        told["state"]["bets"]["scores"][part] -= 1.5
        path.write_text(json.dumps(told))
        with pytest.raises(DataError, match=r"state: .* was altered after it was written"):
            again()
    path.write_text(whole)
    again()


@pytest.mark.parametrize("way", [pickled, zipped])
def test_a_pickle_in_place_of_a_graph_is_refused_and_not_run(
    way: Callable[[bytes, Path], bytes], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from caveat.guard import onnx_guard  # whose other changes are in tests/cli/test_guard_run.py

    path, mark = tmp_path / "guard.onnx", tmp_path / "ran"
    path.write_bytes(way(b"", mark))
    with pytest.raises(DataError, match=r"guard: .* (no ONNX file|not of a guard)"):
        onnx_guard.load(path)
    assert not mark.exists()
