"""`caveat train` looks at network and data before the first step: each of these cost an epoch, or shifted labels."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import CaveatError


def folders(root: Path, classes: str, channels: str = "L") -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(6):
            Image.new(channels, (8, 8), color=(40 * label + k) if channels == "L" else (9, 9, k)).save(
                root / name / f"{k}.png"
            )
    return root


def refused(out: Path, *arguments: object) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, arguments), "--epochs", "1", "-o", str(out)])
    assert isinstance(result.exception, CaveatError), result.output
    assert not out.exists()
    return str(result.exception)


def test_fewer_outputs_than_classes(tmp_path: Path) -> None:
    data = folders(tmp_path / "abc", "abc")
    text = refused(
        tmp_path / "out", "--model", "caveat.models:mlp(size=8, classes=2)", "--data", f"folder:{data}", "--no-audit"
    )
    assert "data: expected labels in [0, 1] as the model has 2 classes, got 2" in text


def test_more_outputs_than_classes_that_have_names(tmp_path: Path) -> None:
    data = folders(tmp_path / "ab", "ab")
    text = refused(
        tmp_path / "out", "--model", "caveat.models:mlp(size=8, classes=3)", "--data", f"folder:{data}", "--no-audit"
    )
    assert "names 2 classes (a, b, ...), but the model has 3 outputs" in text


@pytest.mark.parametrize("tracker", ["swag", "snapshots"])
def test_a_run_too_short_for_its_tracker(tmp_path: Path, tracker: str) -> None:
    """18 pictures in one batch, one epoch: one step; it was trained, and then refused."""
    data = folders(tmp_path / "abc", "abc")
    text = refused(
        tmp_path / "out", "--model", "caveat.models:mlp(size=8, classes=3)", "--data", f"folder:{data}", "--no-audit",
        "--track", tracker,
    )  # fmt: skip
    assert "1 training steps are too few" in text


@pytest.mark.parametrize("model", ["caveat.models:lenet", "caveat.models:resnet18"])
def test_another_size_or_number_of_channels(tmp_path: Path, model: str) -> None:
    data = folders(tmp_path / "abc", "abc")
    text = refused(tmp_path / "out", "--model", model, "--data", f"folder:{data}", "--no-audit")
    assert "data: the model fails on inputs of shape (8, 1, 8, 8)" in text


def test_a_test_set_of_other_classes_or_shape(tmp_path: Path) -> None:
    model = "caveat.models:mlp(size=8, classes=3)"
    data, other = folders(tmp_path / "abc", "abc"), folders(tmp_path / "abd", "abd")
    colour = folders(tmp_path / "colour", "abc", "RGB")
    given = ("--model", model, "--data", f"folder:{data}", "--test")
    assert "data: its classes are not those of test" in refused(tmp_path / "out", *given, f"folder:{other}")
    assert "expected inputs of shape (1, 8, 8) as in the training data, got (3, 8, 8)" in refused(
        tmp_path / "out", *given, f"folder:{colour}"
    )
