"""--device, --dtype and --workers: what is not there is refused, what was taken is said, and figures stay the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from caveat.cli.main import app
from caveat.errors import CaveatError, OptionError
from caveat.models import small_cnn
from caveat.records.record import Record
from caveat.tensors import write_tensors

MODEL = "caveat.models:small_cnn(size=8)"


def caveat(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, CaveatError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that answers differ from input to input."""
    network = small_cnn(size=8, generator=torch.Generator().manual_seed(0))
    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(20)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    write_tensors(path, dict(network.state_dict()))
    return path


def audit(weights: Path, output: Path, *more: object) -> Result:
    data = ("--test", "digits:test+first=300", "--ood", "noise=noise:uniform", "--score", "msp", "--score", "energy")
    return caveat("audit", "--model", MODEL, "--weights", weights, *data, "--replicas", 2, "-o", output, *more)


def test_the_precision_stands_in_the_record_and_in_what_is_printed(weights: Path, tmp_path: Path) -> None:
    found = audit(weights, tmp_path, "--dtype", "bfloat16", "--device", "cpu")
    assert "The network ran on cpu, in bfloat16." in found.output
    settings = Record.load(tmp_path).settings
    assert (settings["device"], settings["dtype"]) == ("cpu", "bfloat16")
    page = (tmp_path / "report.html").read_text()
    assert "<code>dtype</code>" in page
    # kept observations of another precision are not taken for these
    audit(weights, tmp_path, "--device", "cpu")
    whole = Record.load(tmp_path)
    assert whole.settings["dtype"] == "float32"
    audit(weights, tmp_path / "whole", "--device", "cpu")
    assert whole.calibrations == Record.load(tmp_path / "whole").calibrations


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "--model", MODEL, "--test", "digits:test"),
        ("train", "--model", MODEL, "--data", "digits:train"),
        ("audit-pixels", "--model", MODEL, "--test", "camvid"),
        ("demo",),
    ],
    ids=lambda command: command[0],
)
def test_a_device_that_is_not_there_is_refused_before_any_work(command: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--device: there is no 'tpu' on this machine; expected auto, .*cpu"):
        caveat(*command, "--device", "tpu", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_precision_than_the_guards_is_said(weights: Path, tmp_path: Path) -> None:
    audit(weights, tmp_path / "audit", "--dtype", "bfloat16")
    caveat("guard", "fit", tmp_path / "audit", "-o", tmp_path / "guard", "--score", "energy")
    run = ("guard", "run", tmp_path / "guard", "digits:test+first=50", "--model", MODEL, "-o", tmp_path / "v.parquet")
    same = caveat(*run, "--device", "cpu").output
    assert "The network ran on cpu, in bfloat16." in same
    assert "its guarantee holds" not in same
    other = " ".join(caveat(*run, "--dtype", "float32").output.split())
    assert "in float32. The guard was fitted in bfloat16: inputs near its threshold may be decided otherwise" in other
    assert "its guarantee holds for bfloat16 alone" in other


def test_workers_read_the_same_pictures_in_the_same_order(weights: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "set" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number:02}.png")
    (tmp_path / "set" / "3" / "33.png").write_bytes(b"no picture")
    records = []
    for workers in (0, 3):
        sets = (
            "--test",
            f"folder:{tmp_path / 'set'}",
            "--ood",
            "other=noise:uniform",
            "--batch",
            4,
            "--workers",
            workers,
        )
        options = ("--score", "msp", "--calibration", "temperature", "--replicas", 2, "-o", tmp_path / str(workers))
        caveat("audit", "--model", MODEL, "--weights", weights, *sets, *options)
        records.append(Record.load(tmp_path / str(workers)))
    one, other = records
    assert any("1 of 40 pictures could not be read" in text for text in one.warnings)
    for field in ("sets", "calibrations", "selective", "detections", "warnings", "confusion"):
        assert getattr(one, field) == getattr(other, field), field


def test_training_says_where_and_in_what(tmp_path: Path) -> None:
    options = ("--data", "digits:train+first=100", "--epochs", 1, "--no-audit", "--device", "cpu")
    found = caveat("train", "--model", MODEL, *options, "--dtype", "bfloat16", "-o", tmp_path / "half")
    assert "Training on cpu, in bfloat16." in found.output
    with pytest.raises(OptionError, match=r"trained with dtype = 'bfloat16', this run has 'float32'"):
        caveat("train", "--model", MODEL, *options, "-o", tmp_path / "half")
    with pytest.raises(OptionError, match=r"--dtype: expected float32 or bfloat16 to train in, got 'float16'"):
        caveat("train", "--model", MODEL, *options, "--dtype", "float16", "-o", tmp_path / "other")
    assert not (tmp_path / "other").exists()
