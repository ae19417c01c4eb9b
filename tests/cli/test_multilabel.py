"""Several labels of each input from the command line: audited, guarded, run on new rows; and what mistakes are told."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.audits.test_multilabel import NAMES, Net, data
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import CaveatError
from caveat.tensors import write_tensors

MODEL = "caveat.models:regressor(inputs=5,outputs=4,hidden=(8,))"
LABELS = "+label=" + ",".join(NAMES)


def ran(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    """What `main` prints as one line, with exit code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, CaveatError), result.output
    return str(result.exception)


def written(place, name, rows, *, seed, labels=True):
    x, y = data(rows, seed)
    head = [f"f{k}" for k in range(5)] + (NAMES if labels else [])
    lines = [",".join(f"{value:.7g}" for value in row) for row in (torch.cat([x, y], 1) if labels else x).tolist()]
    (place / name).write_text("\n".join([",".join(head), *lines]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, the weights of a network that gives twice the right logits, and its audit."""
    place = tmp_path_factory.mktemp("multilabel")
    written(place, "test.csv", 900, seed=1)
    written(place, "new.csv", 60, seed=2)
    written(place, "bare.csv", 60, seed=2, labels=False)
    weight = Net().layer.weight.detach()
    up = torch.cat([torch.eye(5), -torch.eye(5)])[:8]  # x and -x through ReLU; the last two inputs lose their negative
    down = 2 * torch.cat([weight, -weight], 1)[:, :8]
    state = {
        "hidden1.weight": up, "hidden1.bias": torch.zeros(8), "head.weight": down.contiguous(),
        "head.bias": torch.zeros(4),
    }  # fmt: skip
    write_tensors(place / "net.safetensors", state)
    words = ["--model", MODEL, "--weights", place / "net.safetensors", "--test", f"csv:{place}/test.csv{LABELS}"]
    output = ran("audit", "--task", "multilabel", *words, "--ood", "mixed=permuted", "-o", place / "audit")
    assert "Label sets by conformal risk control hold" in output
    assert "joint_energy against mixed" in output
    assert "caveat guard fit" in output
    return place


def test_the_record_and_the_page(folder):
    record = json.loads((folder / "audit" / "record.json").read_text())
    assert record["task"] == "multilabel"
    assert [row["name"] for row in record["labels"]] == NAMES
    assert record["hamming_loss"]["value"] < 0.32  # 27 % with the right logits
    page = (folder / "audit" / "report.html").read_text()
    assert "Label ranking average precision" in page
    assert NAMES[2] in page
    ran("report", folder / "audit", "-o", folder / "again.html", "--name", "Signs & more")
    assert "Signs &amp; more" in (folder / "again.html").read_text()


def test_a_guard_is_fitted_run_and_tuned(folder):
    output = ran("guard", "fit", folder / "audit", "-o", folder / "guard", "--keep", 0.9)
    assert "share of 10.0% at most is missed in expectation" in output
    where = folder / "verdicts.parquet"
    ran("guard", "run", folder / "guard", f"csv:{folder}/new.csv{LABELS}", "--model", MODEL, "-o", where)
    found = pq.read_table(where).to_pydict()
    truth = [set(row) for row in found["true_labels"]]
    assert truth[0] == {name for name, here in zip(NAMES, data(60, 2)[1][0].tolist(), strict=True) if here}
    missed = [len(one - set(said)) / len(one) for one, said in zip(truth, found["predicted"], strict=True) if one]
    assert np.mean(missed) < 0.25
    assert all(not said for said, ok in zip(found["labels"], found["accepted"], strict=True) if not ok)
    before = sum(found["accepted"])
    assert "probability 50.0% or more" in ran("guard", "tune", folder / "guard", "--keep", 0.5)
    ran("guard", "run", folder / "guard", f"csv:{folder}/bare.csv", "--model", MODEL, "-o", where)
    again = pq.read_table(where).to_pydict()
    assert sum(again["accepted"]) < before
    assert set(map(str, again["true_labels"])) == {"None"}


def test_pictures_with_several_labels_from_an_archive(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.random((200, 8, 8)).astype(np.float32)
    labels = np.stack([images.mean(axis=(1, 2)) > 0.5, images[:, 0, 0] > 0.3, images[:, 1, 1] > 0.8], axis=1)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    words = ["--model", "caveat.models:mlp(classes=3,size=8,hidden=(4,))", "-o", tmp_path / "audit"]
    ran("audit", "--task", "multilabel", *words, "--test", f"npz:{tmp_path}/set.npz", "--ood", "noise=noise:uniform")
    record = json.loads((tmp_path / "audit" / "record.json").read_text())
    assert [round(row["prevalence"]["value"], 1) for row in record["labels"]] == [0.5, 0.7, 0.2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--test", "{csv}"], "name the columns of labels with +label=A,B,C"),
        (["--test", "{csv}+label=red,blue"], "there is no column 'blue' for the label"),
        (["--test", "{csv}+label=f0,red"], "expected 0 or 1 for each of several labels"),
        (["--test", "{csv}+label=red,red"], "'red' twice"),
        (
            ["--test", "{csv}+label=red,round+columns=f0,f1,f2,f3,f4"],
            "expected labels (n, 4), one column for each of the model's 4 outputs",
        ),
        (["--task", "classification"], "audited with --task multilabel"),
        (["--task", "regression"], "audited with --task multilabel"),
        (["--score", "msp"], "--task multilabel: these options are for classifiers"),
        (["--outputs", "gaussian"], "these options are for other tasks"),
        (["--threshold", "50"], "write 0.5 for 50 %"),
    ],
)
def test_mistakes_are_told_in_a_line_and_leave_nothing(folder, tmp_path, change, sentence):
    csv = f"csv:{folder}/test.csv"
    words = {"--task": "multilabel", "--model": MODEL, "--test": csv + LABELS, "-o": str(tmp_path / "audit")}
    words |= {change[0]: change[1].format(csv=csv)}
    assert sentence in refused("audit", *(word for pair in words.items() for word in pair))
    assert not (tmp_path / "audit").exists()


def test_labels_cannot_be_chosen_where_there_are_several(folder, tmp_path):
    words = ["--model", MODEL, "--test", f"csv:{folder}/test.csv{LABELS}+only=1", "-o", tmp_path / "audit"]
    assert "each sample has several labels" in refused("audit", "--task", "multilabel", *words)
