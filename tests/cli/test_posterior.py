"""Posteriors from the command line: trained, tracked, audited."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from caveat import data, posteriors
from caveat.cli.main import app
from caveat.cli.model import load, posterior
from caveat.errors import OptionError
from caveat.records.record import Record
from caveat.scores.draws import mutual_information

MODEL = "caveat.models:tradi_mlp(size=8, hidden=50)"
TRAIN = [
    "train", "--model", MODEL, "--data", "digits:train", "--epochs", 10, "--batch", 32, "--rate", 5e-3,
    "--track", "tradi", "--track", "swag", "--members", 3,
]  # fmt: skip


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    run(*TRAIN, "-o", place)
    assert Record.load(place / "audit" / "record.json").draws is not None  # what was trained is audited: an ensemble
    return place


@pytest.mark.parametrize("name", ["ensemble", "tradi", "swag"])
def test_what_training_leaves_is_audited(folder: Path, tmp_path: Path, name: str) -> None:
    run(
        "audit", "--model", MODEL, "--weights", folder / "model.safetensors", "--test", "digits:test", "--train",
        "digits:train", "--posterior", folder / f"{name}.safetensors", "--score", "msp", "--score",
        "mutual_information", "--replicas", 5, "-o", tmp_path, *([] if name == "ensemble" else ["--draws", 4]),
    )  # fmt: skip
    record = Record.load(tmp_path / "record.json")
    assert record.draws is not None
    assert record.draws.count == (3 if name == "ensemble" else 4)
    assert next(s.epistemic for s in record.draws.sets if s.set == "correct") > 1e-6
    assert record.calibrations[0].summary.accuracy.value > 0.5
    assert json.loads((tmp_path / "record.json").read_text())["draws"]["count"] == record.draws.count

    guard_gives_what_the_posterior_gives(tmp_path, lambda: samples(folder, name))


def samples(folder: Path, name: str) -> posteriors.Predictive:
    """What the audit's options mean, in Python."""
    network = load(MODEL, folder / "model.safetensors")
    path = None if name == "dropout" else folder / f"{name}.safetensors"
    drawn = {"ensemble": None, "dropout": 3}.get(name, 4)
    found = posterior(network, path, dropout=path is None, draws=drawn, seed=0, training=data.load("digits:train"))
    assert isinstance(found, posteriors.Predictive)
    return found.eval()


def guard_gives_what_the_posterior_gives(audit: Path, network: Callable[[], posteriors.Predictive]) -> None:
    """`guard run` needs the network's code alone: the posterior samples lie in the guard."""
    run("guard", "fit", audit, "--score", "mutual_information", "-o", audit / "guard")
    output = run("guard", "run", audit / "guard", "digits:test+first=64", "--model", MODEL, "-o", audit / "v.parquet")
    assert "64 inputs" in output
    rows = pq.read_table(audit / "v.parquet").to_pydict()
    inputs, _ = next(iter(data.load("digits:test+first=64")))
    sampled = network()
    torch.testing.assert_close(torch.tensor(rows["probs"]).log().argmax(1), sampled(inputs).argmax(1))
    expected = mutual_information(sampled.draws(inputs).double())
    torch.testing.assert_close(torch.tensor(rows["score"], dtype=torch.float64), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(rows["epistemic"], dtype=torch.float64), expected, rtol=1e-4, atol=1e-6)
    noise = run("guard", "run", audit / "guard", "noise:uniform+first=9", "--model", MODEL, "-o", audit / "v.parquet")
    assert "9 inputs" in noise  # of the guard's shape


def test_dropout_is_a_flag_away(folder: Path, tmp_path: Path) -> None:
    run(
        "audit", "--model", MODEL, "--weights", folder / "model.safetensors", "--test", "digits:test", "--dropout",
        "--draws", 3, "--score", "variation_ratio", "--score", "mutual_information", "--replicas", 5, "-o", tmp_path,
    )  # fmt: skip
    assert Record.load(tmp_path / "record.json").draws is not None
    guard_gives_what_the_posterior_gives(tmp_path, lambda: samples(folder, "dropout"))


def test_training_again_trains_nothing_and_gives_the_same(folder: Path) -> None:
    before = {name: posteriors.load(folder / f"{name}.safetensors") for name in ("ensemble", "tradi")}
    run(*TRAIN, "-o", folder, "--no-audit")
    after = {name: posteriors.load(folder / f"{name}.safetensors") for name in ("ensemble", "tradi")}
    assert all((value == after["ensemble"].weights[key]).all() for key, value in before["ensemble"].weights.items())
    assert all((value == after["tradi"].variance[key]).all() for key, value in before["tradi"].variance.items())


def test_misuse_is_told(folder: Path, tmp_path: Path) -> None:
    plain = ["audit", "--model", MODEL, "--test", "digits:test", "-o", str(tmp_path)]
    for options, text in (
        (["--draws", "3"], "--posterior or --dropout"),
        (["--dropout", "--posterior", str(folder / "tradi.safetensors")], "got both"),
        (["--posterior", str(folder / "tradi.safetensors")], "batch norm"),
    ):
        with pytest.raises(OptionError, match=text):
            CliRunner().invoke(app, [*plain, *options], catch_exceptions=False)
    with pytest.raises(OptionError, match="did you mean 'tradi'"):
        CliRunner().invoke(
            app, ["train", "--model", MODEL, "--data", "digits", "--track", "trady", "-o", str(tmp_path)],
            catch_exceptions=False,
        )  # fmt: skip
