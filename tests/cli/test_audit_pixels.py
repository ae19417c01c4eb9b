"""`caveat audit-pixels` from the command line."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from caveat import posteriors
from caveat.cli.main import app
from caveat.data.segmentation import open_pairs
from caveat.errors import CaveatError
from caveat.models import enet
from caveat.records.record import Record
from caveat.studies.kit.toy_scenes import write_toy_camvid

MODEL = "caveat.models:enet(classes=8)"
OOD = [text for kind in ("pedestrian", "bicyclist", "car") for text in ("--ood", kind)]


@pytest.fixture
def root(tmp_path):
    write_toy_camvid(tmp_path / "CamVid")
    return tmp_path / "CamVid"


def call(*arguments: object):
    return CliRunner().invoke(app, ["audit-pixels", *map(str, arguments)])


def test_record_and_report(root, tmp_path):
    folder = tmp_path / "out"
    result = call("--model", MODEL, "--test", "camvid", "--root", root, *OOD, "--replicas", 2, "--scenes", 2,
                  "--score", "msp", "--size", "16x24", "-o", folder)  # fmt: skip
    assert result.exit_code == 0, result.output
    record = Record.load(folder / "record.json")
    assert record.sets[0].name == "test"
    assert record.sets[0].shape == [3, 16, 24]
    assert [s.name for s in record.scores] == ["msp"]
    assert record.classes == ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence"]
    assert "Uncertainty of picture" in (folder / "report.html").read_text()


def test_a_posterior_is_asked_for_its_draws(root, tmp_path):
    posteriors.save(posteriors.ensemble.of([enet(classes=8)] * 2), tmp_path / "two.safetensors")
    for name, options in (("a", ["--dropout", "--draws", 2]), ("b", ["--posterior", tmp_path / "two.safetensors"])):
        result = call("--model", MODEL, "--test", "camvid:val", "--root", root, *OOD, "--replicas", 2,
                      "--scenes", 0, "--score", "mutual_information", "-o", tmp_path / name, *options)  # fmt: skip
        assert result.exit_code == 0, result.output
        record = Record.load(tmp_path / name / "record.json")
        assert [s.family for s in record.scores] == ["draws"]
        assert record.sets[0].count == 2


def test_classes_are_told(root, tmp_path):
    result = call("--test", "camvid", "--root", root, "--ood", "car", "--classes")  # asked before there is a network
    assert result.output.strip() == "sky, building, pole, road, pavement, tree, sign, fence, pedestrian, bicyclist"


@pytest.mark.parametrize("missing", ["--model", "-o"])
def test_an_audit_needs_a_network_and_a_folder(root, tmp_path, missing):
    given = {"--model": MODEL, "-o": tmp_path / "out", "--test": "camvid", "--root": root}
    result = call(*(text for name, value in given.items() if name != missing for text in (name, value)))
    assert isinstance(result.exception, CaveatError)
    assert f"{missing}: it is missing" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "camvit"], "--test: there is no 'camvit'"),
        (["--test", "camvid:all"], "no split 'all'"),
        (["--test", "camvid", "--size", "12"], "--size: expected HEIGHTxWIDTH"),
        (["--test", "camvid", "--score", "knn"], "--score: there is no 'knn'"),
        (["--test", "camvid", "--score", "mutual_information"], "--score: there is no 'mutual_information'"),
    ],
)
def test_mistakes_are_told(root, tmp_path, options, message):
    result = call("--model", MODEL, "--root", root, "-o", tmp_path / "out", *options)
    assert isinstance(result.exception, CaveatError)
    assert message in str(result.exception)


@pytest.fixture
def pairs(tmp_path):
    """Four pictures whose left half is class 0, right half class 1, a void column between, one pixel of class 2."""
    folder = tmp_path / "own"
    for part in ("images/a", "labels/a"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        values = np.zeros((16, 24), dtype=np.uint8)
        values[:, 12], values[:, 13:], values[0, 0] = 255, 1, 2
        Image.fromarray(values * 60).convert("RGB").save(folder / f"images/a/{number}.jpg")
        Image.fromarray(values).save(folder / f"labels/a/{number}.png")
    (folder / "classes.txt").write_text("left\nright\ndog\n")
    return folder


def test_pictures_and_maps_of_ones_own(pairs, tmp_path):
    result = call("--model", "caveat.models:enet(classes=2)", "--test", f"pairs:{pairs}", "--ood", "dog",
                  "--replicas", 2, "--scenes", 1, "--score", "msp", "-o", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    record = Record.load(tmp_path / "out" / "record.json")
    assert record.classes == ["left", "right"]
    assert record.sets[0].count == 4
    assert call("--test", f"pairs:{pairs}", "--classes").output.strip() == "left, right, dog"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "classes.txt").unlink(), "expected .*classes.txt with a class a line"),
        (lambda folder: (folder / "classes.txt").write_text("left\nright\n"), "holds 2, but .* the classes 0 to 1"),
        (lambda folder: (folder / "labels/a/1.png").unlink(), "1 of 4 pictures have no label map"),
        (lambda folder: (folder / "classes.txt").write_text("left\nleft\nright"), "different classes"),
    ],
)
def test_a_folder_of_pairs_that_does_not_fit_is_told(pairs, harm, message):
    """A map that counts from 1 would lose its last class to the void."""
    harm(pairs)
    with pytest.raises(CaveatError, match=rf"^pairs:.*{message}"):
        open_pairs(pairs)
