"""The command line as its user meets it: help at once, a real audit, and one line for every mistake."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from caveat.cli.main import main
from caveat.records.record import Record

NETS = """
import torch
from torch import nn

def linear(*, classes=3, generator=None):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.zero_()
        for k in range(classes):
            net[1].weight[k, k] = 20.0
    return net

def headless():
    return nn.Sequential(linear(), nn.Softplus())

def stubborn():
    net = linear()
    net.eval = lambda: net
    return net.train()

answer = 42

def nothing():
    return None
"""


@pytest.fixture
def place(tmp_path, monkeypatch, generator):
    """A folder with a module of networks, an in-distribution set and an OOD one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    Path("nets.py").write_text(NETS)
    labels = torch.arange(240) % 3
    images = 0.4 + 0.15 * torch.randn(240, 16, generator=generator)
    images[torch.arange(240), labels] += 0.3
    np.savez("known.npz", images=images.clamp(0, 1).view(-1, 4, 4).numpy(), labels=labels.numpy())
    np.savez("large.npz", images=np.zeros((5, 6, 6), np.uint8), labels=np.zeros(5, int))
    return tmp_path


def run(*arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["caveat", *arguments])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


AUDIT = ("audit", "--model", "nets:linear", "--test", "npz:known.npz", "-o", "out", "--replicas", "10")


def test_an_audit_from_one_command(place, capsys, monkeypatch):
    code, out, _ = run(*AUDIT, "--ood", "noise=noise:uniform", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    record = Record.load("out/record.json")
    assert {d.ood for d in record.detections} == {"noise"}
    assert "report.html" in out
    assert "msp" in out
    page = Path("out/report.html").read_text()
    code, out, _ = run("report", "out/record.json", "-o", "again.html", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert Path("again.html").read_text() == page


def test_weights_and_arguments_of_the_callable(place, capsys, monkeypatch):
    torch.manual_seed(0)
    save_file({"1.weight": torch.randn(4, 16), "1.bias": torch.zeros(4)}, "w.safetensors")
    options = ("audit", "--model", "nets:linear(classes=4)", "--weights", "w.safetensors", "--test", "npz:known.npz")
    code, _, err = run(*options, "-o", "o", "--score", "msp", "--replicas", "5", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    assert Record.load("o/record.json").classes == ["0", "1", "2", "3"]
    code, _, err = run(*AUDIT, "--weights", "w.safetensors", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "has shape (4, 16)" in err


def truncated_parquet():
    picture = pa.array([{"bytes": b"x", "path": None}] * 20, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": picture, "label": pa.array([0] * 20)}), "p.parquet")
    data = Path("p.parquet").read_bytes()
    Path("p.parquet").write_bytes(data[: len(data) // 2])


def nan_pictures():
    np.savez("nan.npz", images=np.full((30, 4, 4), np.nan, np.float32), labels=np.zeros(30, int))


def high_labels():
    np.savez("high.npz", images=np.zeros((30, 4, 4), np.uint8), labels=np.full(30, 7))


def few():
    np.savez("few.npz", images=np.zeros((6, 4, 4), np.uint8), labels=np.arange(6) % 3)


def no_posterior():
    save_file({"a": torch.zeros(2)}, "known.safetensors")


def empty():
    np.savez("empty.npz", images=np.zeros((0, 4, 4), np.uint8), labels=np.zeros(0, int))


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (nan_pictures, ["--test", "npz:nan.npz"], r"npz:nan.npz"),
        (
            high_labels,
            ["--test", "npz:high.npz"],
            r"test: expected labels in \[0, 2\] as the model has 3 classes, got 7",
        ),
        (empty, ["--test", "npz:empty.npz"], r"npz:empty.npz"),
        (truncated_parquet, ["--test", "parquet:p.parquet"], r"p.parquet"),
        (None, ["--ood", "large=npz:large.npz"], r"large: expected inputs of shape \(1, 4, 4\)"),
        (None, ["--ood", "noise:uniform"], r"--ood: expected NAME=DATA"),
        (None, ["--ood", "a=mnits:test"], r"did you mean 'mnist'|mnist"),
        (None, ["--model", "nets:headless", "--score", "vim"], r"found no linear or 1x1-convolution layer"),
        (None, ["--model", "nets:stubborn"], r"expected a model in evaluation mode"),
        (None, ["--model", "nets:linaer"], r"there is no 'linaer'; did you mean 'linear'"),
        (None, ["--model", "nets:zzz"], r"there is no 'zzz'; expected one of linear, headless, stubborn, nothing$"),
        (None, ["--model", "nets:answer"], r"is not callable"),
        (None, ["--model", "nets:nothing"], r"must return an nn.Module, got NoneType"),
        (None, ["--model", "nonets:linear"], r"cannot import 'nonets' .*; modules are looked for among the installed"),
        (None, ["--model", "nonets.py:linear"], r"cannot import 'nonets.py' .*; leave out \.py: nonets:linear"),
        (None, ["--model", "nets:linear(classes=open)"], r"expected callable or callable\(key=literal\)"),
        (None, ["--model", "net.pt2"], r"may run code"),
        (None, ["--weights", "nowhere.safetensors"], r"--weights: cannot read"),
        (None, ["--score", "enrtopy"], r"did you mean 'entropy'"),
        (None, ["--calibration", "temp"], r"--calibration: there is no 'temp'"),
        (None, ["--fail-if", "auroc[noise]<850%"], r"condition: auroc lies in \[0, 1\]"),
        (None, ["--fail-if", "ecee>0.1"], r"did you mean .ece"),
        (few, ["--test", "npz:few.npz"], r"error: --calibration-share: 0\.2 of 6 samples"),
        (no_posterior, ["--posterior", "known.safetensors"], r"error: --posterior: known.safetensors is no posterior"),
        (None, ["--calibration-share", "2"], r"--calibration-share: expected a share"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(place, prepare, options, message, capsys, monkeypatch):
    if prepare:
        prepare()
    start = [word for i, word in enumerate(AUDIT) if not {word, AUDIT[i - 1]} & set(options) - {"audit"}]
    code, _, err = run(*start, *options, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("caveat: error: ")
    assert re.search(message, last), last
    assert not Path("out").exists()


def test_an_unknown_option_is_refused(place, capsys, monkeypatch):
    code, _, err = run(*AUDIT, "--scores", "msp", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "--score" in err


@pytest.mark.parametrize("table", ["scores", "metrics", "calibrations", "data", "models", "objectives"])
def test_the_tables_are_printed(table, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("list", table, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    expected = {
        "scores": "relative_mahalanobis", "metrics": "aurc", "calibrations": "temperature", "data": "fashion-mnist",
        "models": "lenet", "objectives": "cross_entropy",
    }  # fmt: skip
    assert expected[table] in out


def test_list_alone_names_the_tables(capsys, monkeypatch):
    code, out, _ = run("list", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert "scores, metrics, calibrations" in out


def test_a_wrong_table_is_answered_with_the_nearest(capsys, monkeypatch):
    code, _, err = run("list", "score", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "did you mean 'scores'" in err


def test_help_does_not_wait_for_torch():
    code = "import sys; sys.argv = ['caveat', '--help']\n"
    code += "import caveat.__main__ as m\ntry:\n    m.main()\nexcept SystemExit:\n    pass\n"
    code += "print([n for n in ('torch', 'sklearn', 'pyarrow', 'altair') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
    assert "audit" in out


def test_options_have_the_names_and_defaults_of_the_python_parameters():
    from caveat.audits.audit import audit
    from caveat.cli.audit import run as command

    python = {name: p.default for name, p in inspect.signature(audit).parameters.items()}
    options = {
        name: getattr(p.default, "default", p.default) for name, p in inspect.signature(command).parameters.items()
    }
    for name in ("head", "calibration_share", "replicas", "seed", "train"):
        assert options[name] == python[name], name


def test_training_is_resumed_and_then_audited(place, capsys, monkeypatch):
    options = ("train", "--model", "caveat.models:mlp(classes=3, size=4)", "--data", "npz:known.npz", "-o", "net")
    code, out, err = run(*options, "--epochs", "3", "--rate", "0.01", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    weights = Path("net/model.safetensors").read_bytes()
    assert "epoch 3" in out
    code, _, _ = run(*options, "--epochs", "3", "--rate", "0.01", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert Path("net/model.safetensors").read_bytes() == weights
    assert "caveat audit --model" in out


def test_from_an_audit_to_a_guard_to_verdicts(place, capsys, monkeypatch):
    run(*AUDIT, "--score", "energy", "--ood", "noise=noise:uniform", capsys=capsys, monkeypatch=monkeypatch)
    options = ("guard", "fit", "out", "-o", "guard", "--score", "energy", "--keep", "0.9")
    code, out, err = run(*options, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    assert "accepts a new in-distribution input with probability 90.0% or more" in out
    score = ("guard", "run", "guard", "npz:known.npz", "-o", "v.parquet")
    code, _, err = run(*score, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "--model: a guard names no code that would be run" in err
    assert "(its manifest says: nets:linear)" in err
    code, out, err = run(*score, "--model", "nets:linear", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    table = pq.read_table("v.parquet").to_pydict()
    assert len(table["index"]) == 240
    accepted = sum(table["accepted"])
    assert 0.8 < accepted / 240 < 1
    right = [true == name for true, name in zip(table["true_name"], table["predicted_name"], strict=True)]
    assert sum(right) / 240 > 0.5  # the data's own label beside the prediction, of abstained ones too
    assert f"{accepted} accepted" in out
    both = ("guard", "tune", "guard", "--keep", "0.5", "--max-error", "0.1")
    code, _, err = run(*both, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "error: --keep, --max-error: expected one of them" in err
    code, out, _ = run("guard", "tune", "guard", "--keep", "0.5", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    run(*score, "--model", "nets:linear", capsys=capsys, monkeypatch=monkeypatch)
    assert sum(pq.read_table("v.parquet").to_pydict()["accepted"]) < accepted
    code, _, err = run("guard", "tune", "guard", "--max-error", "1e-6", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "can't be promised" in err


def test_a_gate_for_builds(place, capsys, monkeypatch):
    gate = ("--score", "msp", "--calibration", "temperature", "--fail-if", "accuracy<0.01", "--junit", "junit.xml")
    code, out, err = run(*AUDIT, *gate, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    code, out, _ = run(*AUDIT, *gate, "--fail-if", "accuracy>0.01", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 1
    assert "FAIL" in out
    assert 'failures="1"' in Path("junit.xml").read_text()
    assert [check.failed for check in Record.load("out/record.json").checks] == [False, True]
    code, _, err = run(*AUDIT, "--fail-if", "acuracy<1", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2


def test_arrays_from_the_command_line(place, capsys, monkeypatch, generator):
    labels = torch.arange(200) % 3
    logits = 2 * torch.randn(200, 3, generator=generator)
    logits[torch.arange(200), labels] += 3
    foreign = torch.randn(100, 3, generator=generator).numpy()
    np.savez("said.npz", **{"logits": logits.numpy(), "labels": labels.numpy(), "near/logits": foreign})
    arrays = ("audit", "--logits", "said.npz", "-o", "out", "--replicas", "5", "--score", "msp")
    code, _, err = run(*arrays, "--fail-if", "auroc[near,msp]<0.5", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    assert {d.ood for d in Record.load("out/record.json").detections} == {"near"}
    for condition, text in (("auroc[nope,msp]<1", "did you mean|expected one of"), ("auroc<90%", "set")):
        refused = (
            "audit",
            "--logits",
            "said.npz",
            "-o",
            "refused",
            "--score",
            "msp",
            "--replicas",
            "5",
            "--fail-if",
            condition,
        )
        code, _, err = run(*refused, capsys=capsys, monkeypatch=monkeypatch)
        assert code == 2
        assert re.search(text, err), err
        assert "scoring" not in err  # before any work
        assert not Path("refused").exists()
    code, _, err = run(*arrays, "--model", "nets:linear", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "--logits: an npz file of outputs needs no model and no other data; leave out --model" in err
    code, _, err = run("audit", "-o", "out", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "--model, --test: both are needed" in err


def test_a_head_that_no_score_needs_is_said(place, capsys, monkeypatch):
    code, out, err = run(*AUDIT, "--score", "msp", "--head", "nosuch", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, err
    assert "--head has no effect" in out
    assert any("--head has no effect" in note for note in Record.load("out/record.json").notes)


def test_an_option_of_another_command_is_named_with_it(capsys, monkeypatch):
    """`audit --keep` was told of `--seed`, and the hint at a command was torn out of a longer sentence."""
    told = lambda *words: run(*words, capsys=capsys, monkeypatch=monkeypatch)[2]  # noqa: E731
    assert "no option --keep; caveat guard fit and caveat guard tune have it; see caveat audit" in told(
        "audit", "--keep", "0.9"
    )
    assert "no option --jobs-of; see" in told("audit", "--jobs-of", "2")
    assert "there is no option --weight; did you mean '--weights'?" in told("audit", "--weight", "x")
    assert "there is no command 'gard'; did you mean 'guard'?" in told("gard")


def test_a_narrow_terminal_leaves_out_the_sources(capsys, monkeypatch):
    for columns, there in (("80", False), ("160", True)):
        monkeypatch.setenv("COLUMNS", columns)
        out = run("list", "scores", capsys=capsys, monkeypatch=monkeypatch)[1]
        assert (" source " in out, "shows the sources" in out) == (there, not there)


def test_where_no_guard_can_be_fitted_that_is_not_the_next_thing(place, capsys, monkeypatch):
    assert (
        "Next: a guard that predicts or abstains:  caveat guard fit out"
        in run(*AUDIT, capsys=capsys, monkeypatch=monkeypatch)[1]
    )
    few = [one.replace("known.npz", "known.npz+first=40") for one in AUDIT]
    out = run(*few, capsys=capsys, monkeypatch=monkeypatch)[1]
    assert "Next: a guard, for which the test set is too small: give more of it" in out
    code, _, err = run("guard", "fit", "out", "-o", "guard", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, "can't be promised from" in err) == (2, True)
