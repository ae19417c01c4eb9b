"""caveat train: every objective, resumed after SIGKILL to the same weights, logged, and audited at its end."""

import csv
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from caveat import data, objectives
from caveat.cli import train
from caveat.cli.main import app
from caveat.errors import CaveatError, ModelError, OptionError
from caveat.records.record import Record

MODEL = "caveat.models:small_cnn(size=8)"


def arguments(output: Path, *more: object) -> list[str]:
    epochs = [] if "--epochs" in more else ["--epochs", 2]
    given = ["train", "--model", MODEL, "--data", "digits:train+first=300", *epochs, "-o", output, *more]
    return [str(a) for a in given]


@pytest.mark.parametrize("name", list(objectives.OBJECTIVES))
def test_every_objective_trains(name: str, tmp_path: Path) -> None:
    steps = "(steps=2)" if name in ("acet", "adversarial", "trades") else ""
    steps = "(weight=0.0)" if name in ("ibp", "crown_ibp", "good") else steps  # else radius and loss rise
    result = CliRunner().invoke(app, arguments(tmp_path, "--objective", name + steps, "--no-audit"))
    assert result.exit_code == 0, result.output
    assert "Next: caveat audit" in result.output
    assert ("caveat certify --model" in " ".join(result.output.split())) == (name in ("ibp", "crown_ibp"))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_certified_training_says_what_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two classes whose logits differ by 2 (x - 1/2): the margin less 2 radius, exactly."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        network[1].bias.copy_(torch.tensor([0.5, -0.5]))
    images = torch.tensor([0.3, 0.45, 0.52, 0.7, 0.7]).view(-1, 1, 1, 1)
    known = data.from_tensors(images, torch.tensor([0, 0, 1, 1, 0]))
    train._certified(network, objectives.Ibp(radius=0.1), known, "nets:build", "digits:test", tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "Of the first 5 test pictures 40.0% are verified by intervals at radius 0.1" in said
    assert ", 60.0% falsified." in said
    assert f"--weights {tmp_path}/model.safetensors --test digits:test --radius 0.1 --method interval" in said
    train._certified(network, objectives.cross_entropy, known, "nets:build", "digits:test", tmp_path)
    assert capsys.readouterr().out == ""


def test_training_that_knows_more_layers_than_certificates_ends_well(tmp_path: Path, capsys) -> None:
    """The weights are written by then: an error would say that something went wrong."""
    network = nn.Sequential(nn.Flatten(), nn.ELU(), nn.Linear(1, 2)).eval()
    known = data.from_tensors(torch.rand(3, 1, 1, 1), torch.tensor([0, 0, 1]))
    train._certified(network, objectives.Ibp(radius=0.1), known, "nets:build", "digits:test", tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing is verified: certificates know fewer kinds of layers than this training" in said
    assert "elu" in said
    assert "Next" not in said


def test_weights_that_were_given_are_not_drawn_anew(tmp_path: Path) -> None:
    certified = ["--objective", "ibp(weight=0.0)", "--epochs", 1, "--no-audit"]
    first = CliRunner().invoke(app, arguments(tmp_path / "a", *certified))
    assert "layers are drawn anew" in first.output
    own = arguments(tmp_path / "b", *certified, "--weights", tmp_path / "a" / "model.safetensors", "--rate", 1e-12)
    second = CliRunner().invoke(app, own)
    assert second.exit_code == 0, second.output
    assert "drawn anew" not in second.output
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in before:
        if name.endswith("weight") and before[name].ndim > 1:
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


def test_options_outliers_and_warm_up(tmp_path: Path) -> None:
    more = ["--objective", "outlier_exposure(weight=1.0)", "--outliers", "letters", "--no-audit"]
    result = CliRunner().invoke(app, arguments(tmp_path / "a", *more))
    assert result.exit_code == 0
    assert "recipe" not in result.output
    more = ["--objective", "ceda(outliers='uniform')", "--warm-up", 1, "--no-audit"]
    result = CliRunner().invoke(app, arguments(tmp_path / "b", *more))
    assert result.exit_code == 0
    assert "trained on outliers made by the recipe 'uniform'" in result.output  # nothing told what they were
    with (tmp_path / "b" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_it_ends_with_the_audit_of_what_it_trained(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments(tmp_path, "--ood", "noise=noise:uniform"), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = Record.load(tmp_path / "audit" / "record.json")
    assert [item.name for item in record.sets] == ["test", "train", "noise"]
    assert record.sets[0].source == "digits:test"
    assert (tmp_path / "audit" / "report.html").exists()


@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_a_random_moment_it_ends_in_the_same_weights(attempt: int, tmp_path: Path) -> None:
    more = ["--objective", "acet(steps=2)", "--warm-up", 1, "--epochs", 4, "--batch", 16, "--no-audit"]
    assert CliRunner().invoke(app, arguments(tmp_path / "whole", *more)).exit_code == 0
    command = [sys.executable, "-m", "caveat", *arguments(tmp_path / "killed", *more)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    checkpoints = [tmp_path / "killed" / name for name in ("warm-checkpoint.safetensors", "checkpoint.safetensors")]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and not checkpoints[attempt % 2].exists():
        time.sleep(0.02)
    time.sleep(random.Random(attempt).uniform(0, 0.3))
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert CliRunner().invoke(app, arguments(tmp_path / "killed", *more)).exit_code == 0
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))
"""


def of_my_own(output: Path, *more: object) -> list[str]:
    command = arguments(output, "--no-audit", *more)
    command[command.index("--model") + 1] = "network_of_my_own:build"
    return command


@pytest.fixture
def own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "network_of_my_own.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own_network")
def test_the_seed_is_that_of_the_first_weights_and_of_dropout_of_any_network(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("other", 2)):
        more = ["--seed", seed, "--members", 2]
        assert CliRunner().invoke(app, of_my_own(tmp_path / name, *more)).exit_code == 0
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (load_file(tmp_path / name / "model.safetensors")["1.weight"] for name in ("a", "b", "other"))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    members = [load_file(tmp_path / name / "ensemble.safetensors") for name in ("a", "b")]
    assert all(torch.equal(value, members[1][name]) for name, value in members[0].items())
    (weights,) = (value for name, value in members[0].items() if name.endswith("1.weight"))
    assert not torch.allclose(weights[0], weights[1])


def test_the_next_command_can_be_pasted_and_a_missing_audit_is_told(tmp_path: Path) -> None:
    pictures = torch.rand(60, 8, 8).numpy()
    np.savez(tmp_path / "own set.npz", images=pictures, labels=np.arange(60) % 10)
    command = arguments(tmp_path / "a run")
    command[command.index("--data") + 1] = f"npz:{tmp_path}/own set.npz"
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "No audit was made: it needs test data" in result.output
    words = shlex.split(result.output.splitlines()[-1].removeprefix("Next: "))
    assert words[words.index("--train") + 1] == f"npz:{tmp_path}/own set.npz"
    assert words[words.index("--weights") + 1] == f"{tmp_path}/a run/model.safetensors"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_begun_anew_with_other_epochs(tmp_path: Path) -> None:
    more = ["--track", "snapshots", "--members", 2, "--no-audit"]
    assert CliRunner().invoke(app, arguments(tmp_path, *more)).exit_code == 0
    before = files_of(tmp_path)
    with pytest.raises(OptionError, match=r"finished after 2 epochs; 3 are another training.*another folder"):
        CliRunner().invoke(app, arguments(tmp_path, *more, "--epochs", 3), catch_exceptions=False)
    assert files_of(tmp_path) == before


def test_an_unfinished_run_is_begun_anew_with_other_epochs(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, arguments(tmp_path / "run", "--no-audit")).exit_code == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    for name in ("run", "other"):
        result = CliRunner().invoke(app, arguments(tmp_path / name, "--epochs", 3, "--no-audit"))
        assert result.exit_code == 0, result.output
    again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "other"))
    assert all(torch.equal(value, again[name]) for name, value in other.items())


def test_every_epoch_is_printed_as_soon_as_it_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "caveat", *arguments(tmp_path, "--epochs", 40, "--no-audit")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as run:
        assert run.stdout is not None
        where, first = run.stdout.readline(), run.stdout.readline()
        running = run.poll() is None and not (tmp_path / "model.safetensors").exists()
        rest = run.stdout.read().splitlines()
    assert where.startswith("Training on ")
    assert first.startswith("epoch 1: loss ")
    assert running
    assert [line.split(":")[0] for line in rest if line.startswith("epoch")] == [f"epoch {k}" for k in range(2, 41)]


def test_a_finished_run_tells_its_epochs_again_and_members_theirs(tmp_path: Path) -> None:
    results = [CliRunner().invoke(app, arguments(tmp_path, "--members", 2, "--no-audit")).output for _ in range(2)]
    starts = [[line.split(": loss")[0] for line in text.splitlines() if ": loss" in line] for text in results]
    assert starts == [["epoch 1", "epoch 2", "member 2: epoch 1", "member 2: epoch 2"], ["epoch 1", "epoch 2"]]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (5, r"training diverged: in its last epoch the loss is .*e\+\d\d and .*lower --rate \(this run had 5\)"),
        (30, r"training diverged: .* the loss is \d\d\.\d and the accuracy 1.\.\d%"),
        (200, r"the loss is (nan|inf) at step"),
    ],
)
def test_a_training_that_diverged_is_an_error_and_leaves_no_network(rate: float, text: str, tmp_path: Path) -> None:
    more = ["--optimizer", "sgd", "--rate", rate, "--epochs", 3]
    with pytest.raises(CaveatError, match=text):
        CliRunner().invoke(app, arguments(tmp_path, *more), catch_exceptions=False)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--objective", "acett"], "did you mean 'acet'"),
        (["--objective", "acet(step=2)"], "did you mean 'steps'"),
        (["--objective", "acet(steps=0)"], "steps: expected a finite number of at least 1, got 0"),
        (["--objective", "cross_entropy(weight=2)"], "has no options"),
        (["--objective", "ceda(outliers='fog')"], "expected one of"),
        (["--objective", "focal", "--outliers", "letters"], "there is no 'outliers'"),
        (["--warm-up", "1"], "an objective with a weight"),
        (["--objective", "acet", "--warm-up", "2"], "fewer epochs"),
        (["--optimizer", "lion"], "expected one of adam, sgd"),
    ],
)
def test_misuse_is_told(more: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=text):
        CliRunner().invoke(app, arguments(tmp_path, *more), catch_exceptions=False)


@pytest.mark.parametrize("name", ["ibp", "crown_ibp", "good"])
def test_a_layer_without_bounds_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net_of_gelu.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = arguments(tmp_path / "out", "--objective", name, "--no-audit")
    words[words.index(MODEL)] = "net_of_gelu:build"
    with pytest.raises(ModelError, match="GELU"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "out").exists()
