"""Regression from the command line: trained, audited, guarded, run on new rows; and what it says to mistakes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import CaveatError

MODEL = "caveat.models:regressor(inputs=2,hidden=(16,))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, and a trained and audited ensemble."""
    place = tmp_path_factory.mktemp("regression")
    generator = np.random.default_rng(0)
    for name, rows in (("train", 400), ("test", 300), ("new", 40)):
        x = generator.normal(size=(rows, 2)) * [1, 100] + [0, 500]
        y = 20 + 3 * x[:, 0] + 0.02 * x[:, 1] + generator.normal(size=rows) * 0.3
        lines = [f"{a:.6g},{b:.6g},{c:.6g}" for (a, b), c in zip(x, y, strict=True)]
        (place / f"{name}.csv").write_text("\n".join(["speed,load,wear", *lines]))
    ran(
        "train", "--model", MODEL, "--data", f"csv:{place}/train.csv+label=wear", "--objective", "heteroscedastic",
        "--members", 2, "--epochs", 30, "--rate", 0.03, "--batch", 50, "--test", f"csv:{place}/test.csv+label=wear",
        "--ood", "shuffled=permuted", "-o", place / "run",
    )  # fmt: skip
    return place


def ran(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    """What `main` prints as one line, with exit code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, CaveatError), result.output
    return str(result.exception)


def test_training_ends_with_an_audit_in_the_labels_units(folder):
    record = json.loads((folder / "run" / "audit" / "record.json").read_text())
    assert (record["task"], record["form"], record["networks"]) == ("regression", "gaussian", 2)
    assert record["rmse"]["value"] < 0.6  # the noise is 0.3, the labels' deviation 3.6
    assert record["r2"] > 0.95
    assert (folder / "run" / "audit" / "report.html").stat().st_size > 100_000


def test_a_guard_is_fitted_run_and_tuned(folder):
    output = ran("guard", "fit", folder / "run" / "audit", "-o", folder / "guard", "--keep", 0.9)
    assert "score epistemic_variance" in output
    assert "holds its label with probability 90.0% or more" in output
    where = folder / "verdicts.parquet"
    # another order of columns, more of them, and no labels
    rows = [line.split(",") for line in (folder / "new.csv").read_text().splitlines()]
    (folder / "other.csv").write_text("\n".join(["load,id,speed", *(f"{b},7,{a}" for a, b, _ in rows[1:])]))
    ran("guard", "run", folder / "guard", f"csv:{folder}/other.csv", "--model", MODEL, "-o", where)
    found = pq.read_table(where).to_pydict()
    truth = np.array([float(row[2]) for row in rows[1:]])
    assert np.abs(np.array(found["prediction"]) - truth).max() < 3
    inside = (np.array(found["lower"]) <= truth) & (truth <= np.array(found["upper"]))
    assert inside.mean() > 0.7
    assert set(found["label"]) == {None}
    before = sum(found["accepted"])
    assert "probability 50.0% or more" in ran("guard", "tune", folder / "guard", "--keep", 0.5)
    ran("guard", "run", folder / "guard", f"csv:{folder}/new.csv+label=wear", "--model", MODEL, "-o", where)
    again = pq.read_table(where).to_pydict()
    assert sum(again["accepted"]) < before
    assert again["label"] == pytest.approx(truth.tolist())


def test_the_page_is_written_again_from_the_record(folder):
    ran("report", folder / "run" / "audit", "-o", folder / "again.html", "--name", "Wear & tear")
    assert "Wear &amp; tear" in (folder / "again.html").read_text()


def test_the_audit_of_other_weights_and_forms(folder):
    words = ["audit", "--task", "regression", "--model", MODEL, "--weights", folder / "run" / "model.safetensors"]
    test = ["--test", f"csv:{folder}/test.csv+label=wear", "-o", folder / "audit"]
    assert "outputs: the network gives 2 numbers" in refused(*words, *test)
    more = ["--outputs", "gaussian", "--error", 0.2, "--calibration-share", 0.2]
    assert "80.0 % intervals hold" in ran(*words, *test, *more)
    record = json.loads((folder / "audit" / "record.json").read_text())
    assert {item["error"] for item in record["intervals"]} == {0.2}
    assert record["settings"]["calibration_share"] == 0.2  # the default of classifiers, asked for here


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--task", "regression", "--attack-radius", "0.1"], "for classifiers; leave out --attack-radius"),
        (["--task", "regression", "--error", "2"], "expected a share"),
        (["--task", "ranking"], "no 'ranking'"),
        (["--outputs", "gaussian"], "leave out --outputs"),
        (["--task", "regression", "--levels", "a,b", "--outputs", "quantiles"], "--levels: expected numbers"),
        (["--task", "regression"], "name their column with +label=COLUMN"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, more, word):
    output = refused("audit", "--model", MODEL, "--test", f"csv:{folder}/test.csv", "-o", folder / "no", *more)
    assert word in output
    assert not (folder / "no").exists()


@pytest.mark.parametrize(
    ("objective", "more", "word"),
    [
        ("cross_entropy", [], "labels of"),
        ("quantile", [], "expected outputs (8, 3)"),
        ("beta_nll(beta=2.0)", [], "beta: expected a number in [0, 1]"),
        ("beta_nll(gamma=2.0)", [], "no 'gamma'"),
        ("mean_squared_error(power=1)", [], "has no options"),
        ("heteroscedastic", ["--augment", "flip"], "changes pictures"),
        ("heteroscedastic", ["--outliers", "letters"], "made of pictures"),
    ],
)
def test_objectives_that_do_not_fit_leave_no_folder(folder, objective, more, word):
    data = f"csv:{folder}/train.csv+label=wear"
    output = refused("train", "--model", MODEL, "--data", data, "--objective", objective, "-o", folder / "no", *more)
    assert word in output
    assert not (folder / "no").exists()


def test_classes_of_a_table_are_trained_and_audited_too(folder, tmp_path):
    rows = [line.split(",") for line in (folder / "train.csv").read_text().splitlines()][1:]
    lines = [f"{a},{b},{'worn' if float(c) > 30 else 'fine'}" for a, b, c in rows]
    (tmp_path / "a.csv").write_text("\n".join(["speed,load,label", *lines]))
    ran(
        "train", "--model", MODEL, "--data", f"csv:{tmp_path}/a.csv+first=300", "--test", f"csv:{tmp_path}/a.csv",
        "--epochs", 20, "--rate", 0.03, "--ood", "far=noise:normal", "-o", tmp_path / "run",
    )  # fmt: skip
    record = json.loads((tmp_path / "run" / "audit" / "record.json").read_text())
    assert record["classes"] == ["fine", "worn"]
    assert record["calibrations"][0]["summary"]["accuracy"]["value"] > 0.9
    guard = tmp_path / "guard"
    ran("guard", "fit", tmp_path / "run" / "audit", "-o", guard)
    (tmp_path / "b.csv").write_text("\n".join(["load,speed", *(f"{b},{a}" for a, b, _ in rows[:30])]))
    ran("guard", "run", guard, f"csv:{tmp_path}/b.csv", "--model", MODEL, "-o", tmp_path / "v.parquet")
    found = pq.read_table(tmp_path / "v.parquet").to_pydict()["predicted_name"]
    truth = ["worn" if float(c) > 30 else "fine" for _, _, c in rows[:30]]
    assert torch.tensor([a == b for a, b in zip(found, truth, strict=True)]).float().mean() > 0.85
