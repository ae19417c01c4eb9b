"""Two processes under torchrun train the network that one does, and one of them speaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import OptionError
from caveat.objectives import cross_entropy
from caveat.training import fit, ranks

NETS = """
from torch import nn

def normed(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, classes))
"""
OPTIONS = [
    "--model", "ranked_nets:normed", "--data", "digits:train+first=203", "--epochs", "2", "--optimizer", "sgd",
    "--rate", "0.05", "--batch", "40", "--members", "2", "--no-audit", "--device", "cpu",
]  # fmt: skip


def started(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Of 203 samples the last batch is three: one process has a single one, of which alone there is no norm."""
    (folder / "ranked_nets.py").write_text(NETS)
    here = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=here, capture_output=True, text=True, timeout=120, check=False
    )


LEFT = """
import os, time
import torch
from caveat.training import ranks

def threads():
    return [open(f"/proc/self/task/{one}/comm").read().strip() for one in os.listdir("/proc/self/task")]

with ranks.joined(torch.device("cpu")):
    for _ in range(500):  # a thread has its name a little after it is there
        if named := any("gloo" in name for name in threads()):
            break
        time.sleep(0.02)
    assert named, threads()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from /proc")
def test_no_thread_of_the_process_group_outlives_it(tmp_path: Path) -> None:
    """One that wakes while Python shuts down ends the process with SIGABRT, after all was written."""
    (tmp_path / "left.py").write_text(LEFT)
    found = started(tmp_path, "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "left.py")
    assert found.returncode == 0, found.stderr


def test_two_processes_give_the_weights_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    together = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "caveat", "train", *OPTIONS)
    two = started(tmp_path, *together, "-o", "two")
    assert two.returncode == 0, two.stderr
    one = CliRunner().invoke(app, ["train", *OPTIONS, "-o", "one"], catch_exceptions=False)
    assert sum("epoch 2" in line for line in two.stdout.splitlines()) == 2  # of each member once
    assert "in 2 processes that each take a part of every batch" in two.stdout
    said = [[line.rpartition(",")[0] for line in run.stdout.splitlines() if "epoch" in line] for run in (one, two)]
    assert said[0] == said[1]  # without the seconds
    for name in ("model.safetensors", "ensemble.safetensors"):
        expected, found = (load_file(tmp_path / folder / name) for folder in ("one", "two"))
        assert expected.keys() == found.keys()
        for key, weight in expected.items():
            torch.testing.assert_close(found[key].double(), weight.double(), rtol=0, atol=1e-5, msg=key)
    refused = started(tmp_path, *together, "-o", "two", "--decay", "0.1")
    assert refused.returncode != 0
    assert refused.stderr.count("caveat: error: ") == 1
    assert "two holds a network trained with decay = 0.0, this run has 0.1" in refused.stderr


def test_alone_nothing_is_shared() -> None:
    labels = torch.arange(5)
    assert ranks.part(labels, labels) == (labels, labels, 1.0)
    generator = torch.Generator().manual_seed(3)
    with ranks.joined(torch.device("cpu")) as place, ranks.drawing(generator) as own:
        assert (ranks.count(), ranks.rank(), place) == (1, 0, torch.device("cpu"))
        assert own is generator
    assert ranks.by_first(lambda: 7) == 7


def test_training_in_half_precision_keeps_weights_and_loss_in_single() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    batches, seen = [(inputs, inputs[:, :3].argmax(1))], set[torch.dtype]()
    model[1].register_forward_hook(lambda _, given, made: seen.add(made.dtype))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = set[torch.dtype]()

    def watched(net, batch, labels, generator):
        loss = cross_entropy(net, batch, labels, generator)
        losses.add(loss.dtype)
        return loss

    made = fit(model, batches, watched, optimizer=optimizer, epochs=40, generator=torch.Generator(), dtype="bfloat16")
    assert (seen, losses) == ({torch.bfloat16}, {torch.float32})
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert made.accuracy[-1] > 0.9
    assert model(inputs).dtype == torch.float32
    with pytest.raises(OptionError, match=r"dtype: expected float32 or bfloat16 to train in, got 'float16'.*bfloat16"):
        fit(model, batches, cross_entropy, optimizer=optimizer, epochs=1, generator=torch.Generator(), dtype="float16")
