"""Started in a stranger's folder, no command runs what lies there in place of a library."""

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from caveat.cli import model

HOSTILE = ("altair", "sklearn", "typer", "torch", "scipy", "jinja2", "statistics", "numpy", "accelerate")


@pytest.fixture
def hostile(tmp_path):
    """A folder of modules named like libraries; each leaves a mark when it runs."""
    for name in HOSTILE:
        mark = tmp_path / f"{name}.ran"
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\nraise ImportError('hostile')\n")
    own = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "own_net.py").write_text(own)
    return tmp_path


@pytest.mark.parametrize("network", ["caveat.models:mlp(size=8,hidden=(8,))", "own_net:net"])
def test_modules_of_the_working_directory_shadow_no_library(hostile: Path, network):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    arguments = ["audit", "--model", network, "--test", "digits", "--ood", "noise=noise:uniform", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "caveat", *arguments], cwd=hostile, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (hostile / "out" / "report.html").exists()
    assert not list(hostile.glob("*.ran"))


def test_a_folder_is_not_taken_for_a_library_that_torch_looks_for(hostile: Path, monkeypatch):
    """`guard export --triton triton` once broke every later export in that folder."""
    monkeypatch.chdir(hostile)
    (hostile / "triton").mkdir()
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    if find_spec("triton") is not None:
        pytest.skip("triton is installed")
    for name in ("own_net", "triton"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    model.load("own_net:net")
    try:
        with pytest.raises(ImportError):
            importlib.import_module("triton")
    finally:
        for name in ("own_net", "triton"):
            sys.modules.pop(name, None)


def test_a_module_of_the_working_directory_is_found_last(hostile: Path, monkeypatch):
    monkeypatch.chdir(hostile)
    elsewhere = [place for place in sys.path if place]
    monkeypatch.setattr(sys, "path", list(elsewhere))
    model.load("caveat.models:lenet")
    assert sys.path == elsewhere
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    assert len(list(model.load("own_net:net").parameters())) == 2
    assert sys.path == [*elsewhere, ""]
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
