"""Normalising inside of a network: the same numbers as outside, whole channels, and back from a file or a guard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from caveat.cli import model as models
from caveat.cli.main import app
from caveat.errors import DataError, OptionError
from caveat.models.normalized import STATISTICS, Normalized, restored, statistics
from caveat.tensors import write_tensors


def test_each_channel_has_its_own_numbers() -> None:
    inputs = torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(values)[:, None, None] for values in STATISTICS["imagenet"])
    assert torch.equal(Normalized(nn.Identity(), *STATISTICS["imagenet"])(inputs), (inputs - mean) / std)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4, 4), (2, 3)])
def test_one_channel_never_becomes_three(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected 3 channels"):
        Normalized(nn.Identity(), *STATISTICS["imagenet"])(torch.rand(shape))


def test_texts_are_names_or_numbers() -> None:
    assert statistics("mnist") == ((0.1307,), (0.3081,))
    assert statistics("0.5,0.4/0.25,0.2") == ([0.5, 0.4], [0.25, 0.2])
    with pytest.raises(OptionError, match="did you mean 'imagenet'"):
        statistics("imagnet", name="--normalize")
    with pytest.raises(OptionError, match="expected numbers MEAN"):
        statistics("a/b", name="--normalize")
    with pytest.raises(OptionError, match="as many as means"):
        Normalized(nn.Identity(), *statistics("0.5,0.4/0.25"))


def test_a_file_of_a_normalised_network_brings_its_numbers(tmp_path: Path) -> None:
    """Weights of a network trained with --normalize: without the option its first step would be missing."""
    spec = "caveat.models:lenet"
    made = models.load(spec, normalize="0.1307/0.3081")
    write_tensors(tmp_path / "w.safetensors", made.state_dict())
    found = models.load(spec, tmp_path / "w.safetensors", seed=3)
    inputs = torch.rand(3, 1, 28, 28)
    assert torch.equal(found(inputs), made(inputs))
    assert restored(nn.Linear(2, 2), made.state_dict()).__class__ is nn.Linear
    with pytest.raises(OptionError, match="normalises its inputs already"):
        models.load(spec, tmp_path / "w.safetensors", normalize="mnist")


def test_a_guard_brings_its_normalisation(tmp_path: Path) -> None:
    """`guard run` needs the same --model and no more."""
    run = CliRunner().invoke
    np.savez(tmp_path / "d.npz", images=torch.rand(240, 28, 28).numpy(), labels=torch.arange(240).numpy() % 10)
    data = ["--test", f"npz:{tmp_path}/d.npz", "--score", "msp"]
    out = run(
        app,
        ["audit", "--model", "caveat.models:lenet", "--normalize", "mnist", *data, "-o", str(tmp_path / "a")],
    )
    assert out.exit_code == 0, out.output
    assert run(app, ["guard", "fit", str(tmp_path / "a"), "-o", str(tmp_path / "g"), "--score", "msp"]).exit_code == 0
    out = run(
        app,
        [
            "guard",
            "run",
            str(tmp_path / "g"),
            data[1],
            "--model",
            "caveat.models:lenet",
            "-o",
            str(tmp_path / "v.parquet"),
        ],
    )
    assert out.exit_code == 0, out.output
