"""Every wrong invocation of every command: exit code 2, one line that says why, and nothing left behind.

The cases are made of tables: what each option of a command takes, times the values that are wrong for its kind.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file

from caveat.cli.main import app, main

NETS = """
import torch
from torch import nn

def linear(*, classes=3, generator=None):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    with torch.no_grad():
        net[1].weight.copy_(20 * torch.eye(16)[:classes])
        net[1].bias.zero_()
    return net

answer = 42

def nothing():
    return None

def broken():
    raise RuntimeError("no such file: [bold]")
"""

LOCKED = "/proc/caveat" if os.geteuid() == 0 else "locked"
"""A folder that cannot be written to; permissions do not hold root back."""

INTEGER = ["x", "1.5", "-1", "", "nan", "1e3", "99999999999999999999999x"]
POSITIVE = [*INTEGER, "0"]
REAL = ["x", "nan", "inf", "-inf", "-1", ""]
SHARE = [*REAL, "0", "1", "95"]
READ = ["missing.safetensors", "folder", "text.txt", "empty"]
SET = [
    "nosuch", "npz:missing.npz", "npz:text.txt", "npz:", "folder:missing", "folder:folder", "parquet:text.txt",
    "digits:nosplit", "digits+nosuch", "digits+first=x", "digits+first=0", "", "[/]", "npz:lost.npz",
]  # fmt: skip
TESTED = [*SET, "noise:uniform", "blobs", "npz:nan.npz", "npz:none.npz"]
NAMED = [
    "digits",
    "=digits",
    "a=",
    "",
    *(f"a={one}" for one in SET),
    "[/]=nosuch",
    "test=noise:uniform",
    "a=npz:nan.npz",
]
NETWORK = [
    "nosuch", "nosuch:linear", "nets:", "nets:linaer", "nets:answer", "nets:nothing", "nets:broken", "sys:exit",
    "nets:linear(size=3)", "nets:linear(classes=open)", "nets:linear(3)", "net.pt2", "net.pkl", "",
]  # fmt: skip
FOLDER = ["text.txt", "text.txt/out", f"{LOCKED}/out", "stranger-page", "stranger-record"]
PAGE = ["page.csv", "page", "html", "held.html", "text.txt/page.html", f"{LOCKED}/page.html"]

AUDIT = {"--model": "nets:linear", "--test": "npz:known.npz", "-o": "out", "--replicas": "5"}
FEW = {"--score": "energy", "--calibration": "temperature"}
ARRAYS = {"--logits": "outputs.npz", "-o": "out"}
PIXELS = {"--model": "nets:linear", "--test": "camvid", "-o": "out"}
TRAIN = {"--model": "caveat.models:mlp(classes=3, size=4)", "--data": "npz:known.npz", "-o": "out", "--epochs": "1"}
FIT = {"": "audit", "-o": "out"}
TUNE = {"": "guard", "--keep": "0.9"}
RUN = {"": "guard npz:known.npz", "--model": "nets:linear", "-o": "out.parquet"}
COUNTS = [f"guard {one}" for one in ("noise:uniform+count=0", "npz:known.npz+count=5", "permuted+count=9")]
EXPORT = {"": "guard", "--model": "nets:linear", "-o": "out.onnx"}
ROBUST = {"--model": "nets:linear", "--test": "npz:known.npz", "--radius": "0.1", "-o": "out.parquet"}
WAYS: list[tuple[str, dict[str, str], dict[str, list[str]]]] = [
    (
        "audit",
        AUDIT,
        {
            "--model": NETWORK, "--test": TESTED, "-o": FOLDER, "--weights": [*READ, "other.safetensors"],
            "--posterior": READ, "--draws": [*POSITIVE, "5"], "--train": SET, "--ood": NAMED, "--unlabelled": NAMED,
            "--outliers": SET, "--score": ["nosuch", "", "enrtopy", "mutual_information"],
            "--calibration": ["nosuch", "", "temp"], "--head": ["nosuch", ""], "--attack-radius": [*REAL, "0"],
            "--attack-norm": ["3", "x", "", "nan", "2"], "--attack-samples": [*POSITIVE, "5"],
            "--attack-certify": ["nosuch", "", "deeppoly"], "--attack-smallest": ["-1", "x", "", "nan", "1.5", "3"],
            "--attack-transform": ["", "rotate", "rotate=", "rotat=3", "rotate=x", "rotate=-3"],
            "--calibration-share": SHARE, "--replicas": POSITIVE, "--seed": INTEGER, "--batch": POSITIVE,
            "--fail-if": [
                "", "ece", "ece>", "ecee>0.1", "ece>5", "ece>nan", "auroc[near]<85%", "auroc<0.5", "accepted[near]>0.3",
                "aurc[nosuch]>0.1", "coverage>0.1", "coverage[lca]<0.9", "ece[nosuch]>0.1", "nll>5%", "[bold]>0.1",
            ],
            "--junit": ["junit.xml", "junit.txt", "folder"],
        },
    ),
    (
        "audit",
        AUDIT | {"--fail-if": "ece>0.9"},
        {"--junit": ["junit", "held.xml", "text.txt/j.xml", f"{LOCKED}/j.xml"]},
    ),
    ("audit", AUDIT | {"--ood": "a=noise:uniform"}, {"--fail-if": ["auroc[b]<0.9", "auroc[a,nosuch]<0.9"]}),
    (
        "audit",
        ARRAYS,
        {
            "--logits": ["missing.npz", "folder", "text.txt", "", "unlabelled.npz", "nan.npz"], "-o": FOLDER,
            "--model": ["nets:linear"], "--test": ["npz:known.npz"], "--train": ["npz:known.npz"],
            "--ood": ["a=noise:uniform"], "--unlabelled": ["a=digits"], "--weights": ["net.safetensors"],
            "--posterior": ["net.safetensors"], "--outliers": ["noise:uniform"], "--head": ["fc"],
            "--attack-radius": ["0.1"], "--attack-norm": ["2"], "--attack-samples": ["5"], "--attack-smallest": ["5"],
            "--attack-transform": ["rotate=3"], "--batch": ["2"],
            "--draws": ["5"], "--score": ["nosuch", "knn", "grad_l2"], "--calibration": ["nosuch"],
            "--fail-if": ["ecee>0.1", "ece>5"], "--calibration-share": SHARE, "--replicas": POSITIVE,
        },
    ),
    (
        "audit-pixels",
        PIXELS,
        {
            "--model": ["", *NETWORK[:3]], "--test": ["nosuch", "", "camvid:nosplit", "camvid", "digits"],
            "-o": FOLDER, "--weights": READ, "--root": ["missing", "text.txt"], "--size": ["x", "3", "3x", "-3x4", ""],
            "--posterior": READ, "--draws": POSITIVE, "--scenes": INTEGER, "--replicas": POSITIVE, "--seed": INTEGER,
            "--batch": POSITIVE,
        },
    ),
    (
        "train",
        TRAIN,
        {
            "--model": NETWORK, "--data": TESTED, "-o": [*FOLDER[:3], "stranger-weights"],
            "--weights": [*READ, "other.safetensors"], "--epochs": POSITIVE, "--optimizer": ["nosuch", "", "Adam"],
            "--rate": [*REAL, "0"], "--decay": REAL, "--batch": POSITIVE, "--seed": INTEGER,
            "--objective": ["nosuch", "", "acet(nosuch=3)", "acet(3)", "cross_entropy(weight=2)", "acet(steps=)"],
            "--outliers": ["npz:known.npz", *SET], "--warm-up": [*INTEGER, "1", "3"], "--test": TESTED,
            "--track": ["nosuch", "", "laplace"], "--members": POSITIVE,
        },
    ),
    ("train", TRAIN | {"--test": "npz:known.npz"}, {"--ood": [*NAMED[:8], "test=noise:uniform"]}),
    ("demo", {"-o": "out"}, {"-o": FOLDER, "--epochs": POSITIVE, "--replicas": POSITIVE, "--seed": INTEGER}),
    (
        "guard fit",
        FIT,
        {
            "": ["missing", "text.txt", "folder", "arrays", "guard"], "-o": [*FOLDER, "audit"],
            "--score": ["nosuch", "", "grad_l2", "mutual_information"], "--calibration": ["nosuch", ""],
            "--keep": SHARE, "--max-error": SHARE, "--against": ["nosuch", ""], "--seed": INTEGER, "--ood-share": SHARE,
        },
    ),
    ("guard tune", TUNE, {"": ["missing", "text.txt", "folder", "audit"], "--keep": SHARE}),
    ("guard tune", {"": "guard"}, {"--max-error": SHARE}),
    (
        "guard monitor", {"": "guard verdicts.parquet", "-o": "out"},
        {
            "": ["guard missing", "missing known.npz", "audit known.npz", "guard text.txt", "guard folder"],
            "-o": FOLDER, "--labels": READ, "--level": SHARE, "--seed": INTEGER,
        },
    ),
    (
        "guard export",
        EXPORT,
        {
            "": ["missing", "text.txt", "folder", "audit"], "--model": [*NETWORK, "nets:linear(classes=4)"],
            "-o": [
                "e.json", "e", "onnx", "held.onnx", "stranger.onnx", "text.txt/e.onnx", f"{LOCKED}/e.onnx",
            ],
            "--triton": ["text.txt", "stranger-models"], "--mlflow": ["text.txt", "stranger-models"],
        },
    ),
    (
        "guard card", {"": "guard", "-o": "out.md"},
        {
            "": ["missing", "text.txt", "folder", "audit"],
            "-o": ["e.json", "e", "md", "held.md", "stranger.md", "text.txt/e.md", f"{LOCKED}/e.md"],
        },
    ),
    (
        "guard serve", {"": "guard", "--model": "nets:linear", "--port": "0"},
        {
            "": ["missing", "text.txt", "folder", "audit", "missing.onnx", "stranger.onnx"],
            "--model": [*NETWORK, "nets:linear(classes=4)"], "--host": ["nosuch.invalid", "", "1.2.3.4", "::zz"],
            "--port": [*INTEGER, "65536"], "--token-file": [*READ, "held.html"],
            "--monitor": [*FOLDER[:3], "stranger-state"], "--level": SHARE, "--batch": POSITIVE, "--queue": POSITIVE,
            "--concurrency": POSITIVE, "--wait": REAL, "--timeout": [*REAL, "0"], "--body": [*REAL, "0"],
            "--device": ["nosuch", ""],
        },
    ),
    (
        "guard run",
        RUN,
        {
            "": [
                "missing npz:known.npz", "text.txt npz:known.npz", "folder npz:known.npz", "audit npz:known.npz",
                *(f"guard {one}" for one in SET if one and " " not in one), "guard npz:large.npz",
                "guard permuted",
            ],
            "--model": [*NETWORK, "nets:linear(classes=4)"],
            "-o": [
                "v.json", "held.parquet", "text.txt", "text.txt/v.parquet", "text.txt/v", f"{LOCKED}/v.parquet",
                f"{LOCKED}/v", "stranger-verdicts",
            ],
            "--batch": POSITIVE, "--seed": INTEGER, "--rows": ["5", *POSITIVE], "--device": ["nosuch", ""],
            "--dtype": ["nosuch", ""], "--engine": ["nosuch", "", "ray"], "--address": ["auto"],
        },
    ),
    (
        "guard run",
        RUN | {"-o": "out"},
        {"--rows": POSITIVE, "": ["stranger.onnx npz:known.npz", "missing.onnx npz:known.npz", *COUNTS]},
    ),
    (
        "report",
        {"": "audit", "-o": "p.html"},
        {"": ["missing", "text.txt", "folder", "outputs.npz", "bad.json"], "-o": PAGE},
    ),
    (
        "compare",
        {"": "audit arrays", "-o": "p.html"},
        {
            "": [
                "audit", "audit audit", "audit audit/record.json", "audit ./folder/../audit", "audit missing",
                "audit text.txt", "audit folder", "audit arrays bad.json",
            ],
            "-o": PAGE,
        },
    ),
    (
        "certify",
        ROBUST,
        {
            "--model": NETWORK, "--test": ["nosuch", "npz:missing.npz", ""], "--radius": REAL,
            "--norm": ["3", "x", ""], "--method": ["nosuch", ""], "--weights": READ, "--batch": POSITIVE,
            "--seed": INTEGER, "-o": ["out.csv", "folder", "text.txt/out.parquet"],
        },
    ),
    (
        "attack",
        ROBUST,
        {
            "--model": NETWORK, "--test": ["nosuch", "npz:missing.npz", ""], "--radius": [*REAL, "0"],
            "--norm": ["3", "x", ""], "--attack": ["nosuch", "", "fmn"], "--weights": READ, "--batch": POSITIVE,
            "--seed": INTEGER, "-o": ["out.csv", "folder", "text.txt/out.parquet"],
        },
    ),
    ("list", {"": "scores"}, {"": ["score", "nosuch", "scores metrics"]}),
    (
        "study",
        {"": "tradi-mnist", "--scale": "smoke", "-o": "out"},
        {
            "": ["nosuch", "tradi", "tradi-mnist tradi-cifar"], "--scale": ["nosuch", "", "large"],
            "-o": [*FOLDER[:3], "stranger-page"], "--seed": INTEGER,
        },
    ),
]  # fmt: skip
SINGLE = [
    ["nosuch"], ["audi"], ["--nosuch"], ["--seed"], ["guard", "nosuch"], ["guard", "--keep", "0.9"],
    ["audit"], ["audit", "-o"], ["audit", "-o", "out"], ["audit", "--model", "nets:linear", "-o", "out"],
    ["audit", "--tset", "x"], ["audit", "-x"], ["audit", "-o", "out", "extra"], ["train"], ["guard", "fit"],
    ["guard", "run", "guard"], ["guard", "tune"], ["guard", "tune", "guard"], ["report"], ["compare"],
    ["study"], ["audit-pixels"], ["demo", "extra"],
    ["guard", "run", "guard", "npz:known.npz"],
    ["guard", "fit", "audit", "-o", "out", "--keep", "0.9", "--max-error", "0.1"],
    ["guard", "fit", "audit", "-o", "out", "--keep", "0.9", "--against", "near"],
    ["guard", "fit", "audit", "-o", "out", "--max-error", "0.1", "--ood-share", "0.1"],
    ["guard", "fit", "audit", "-o", "out", "--max-error", "0.1", "--each-class"],
    ["guard", "tune", "guard", "--keep", "0.9", "--max-error", "0.1"], ["guard", "tune", "guard", "--each-class"],
    ["guard", "tune", "guard", "--keep", "0.999999"], ["guard", "tune", "guard", "--max-error", "1e-6"],
    ["audit", "--logits", "outputs.npz", "-o", "out", "--name", "\udcff"], ["report", "\udcff", "-o", "p.html"],
    ["report", "study", "--name", "x", "-o", "p.html"], ["compare", *(7 * ["audit"])],
]  # fmt: skip
CLASH = {
    "audit": [
        ["--posterior", "net.safetensors", "--dropout"], ["--dropout", "--attack-radius", "0.1"], ["--dropout"],
        ["--dropout", "--attack-transform", "rotate=3"],
        ["--attack-transform", "rotate=3", "--attack-transform", "rotate=4"],
        ["--ood", "a=noise:uniform", "--ood", "a=blobs"], ["--ood", "a=noise:uniform", "--unlabelled", "a=blobs"],
        ["--attack-norm", "1"], ["--score", "vim", "--head", "nosuch"], ["--dropout", "--score", "odin"],
        ["--attack-radius", "0.1", "--attack-radius", "nan"],
    ],
    "train": [["--weights", "net.safetensors", "--weights", "net.safetensors"], ["--audit", "--no-audit"]],
}  # fmt: skip


def words(command: str, options: dict[str, str]) -> list[str]:
    """A command line: positional arguments stand under the empty name."""
    positional = options.get("", "").split()
    return [*command.split(), *positional, *(word for name, value in options.items() if name for word in (name, value))]


def cases() -> Iterator[list[str]]:
    yield from SINGLE
    for command, right, options in WAYS:
        for name, values in options.items():
            yield from (words(command, right | {name: value}) for value in values)
            if name:
                yield [*words(command, {key: value for key, value in right.items() if key != name}), name]
                once = right | {name: values[0]}
                if name in right:
                    yield [*words(command, once), name, values[0]]
        yield [*words(command, right), "--nosuch", "x"]
    for command, right in (("audit", AUDIT), ("train", TRAIN)):
        yield from ([*words(command, right), *more] for more in CLASH[command])


CASES = list({tuple(case): case for case in cases()}.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder: a module of networks, sets, an audit, a guard, and files that are none of ours."""
    place = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place)
        patch.setenv("HOME", str(place / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("CAVEAT_DATA", raising=False)
        patch.delenv("CAVEAT_TRACEBACK", raising=False)
        patch.delitem(sys.modules, "nets", raising=False)
        patch.setattr(sys, "dont_write_bytecode", True)
        _write(torch.Generator().manual_seed(0))
        for line in (
            words("audit", AUDIT | FEW | {"-o": "audit", "--ood": "near=noise:uniform"}),
            words("audit", ARRAYS | FEW | {"-o": "arrays", "--replicas": "5"}),
            words("guard fit", FIT | {"-o": "guard", "--score": "energy", "--keep": "0.8"}),
        ):
            patch.setattr(sys, "argv", ["caveat", *line])
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code
        yield place


def _write(generator: torch.Generator) -> None:
    labels = torch.arange(240) % 3
    images = 0.4 + 0.15 * torch.randn(240, 16, generator=generator)
    images[torch.arange(240), labels] += 0.3
    logits = 2 * torch.randn(240, 3, generator=generator)
    logits[torch.arange(240), labels] += 3
    Path("nets.py").write_text(NETS)
    for folder in (
        "home",
        "folder",
        "held.html",
        "held.xml",
        "held.parquet",
        "held.onnx",
        "held.md",
        "locked",
        "study",
    ):
        Path(folder).mkdir()
    Path("locked").chmod(0o500)
    np.savez("known.npz", images=images.clamp(0, 1).view(-1, 4, 4).numpy(), labels=labels.numpy())
    np.savez("large.npz", images=np.zeros((5, 6, 6), np.uint8), labels=np.zeros(5, int))
    np.savez("nan.npz", images=np.full((30, 4, 4), np.nan, np.float32), labels=np.zeros(30, int))
    np.savez("none.npz", images=np.zeros((0, 4, 4), np.uint8), labels=np.zeros(0, int))
    np.savez("lost.npz", labels=labels.numpy())
    np.savez("outputs.npz", logits=logits.numpy(), labels=labels.numpy())
    np.savez("unlabelled.npz", logits=logits.numpy())
    save_file({"1.weight": torch.ones(3, 16), "1.bias": torch.zeros(3)}, "net.safetensors")
    save_file({"other": torch.ones(2)}, "other.safetensors")
    Path("text.txt").write_text("a text\n")
    Path("stranger.onnx").write_bytes(b"a graph of somebody")
    Path("stranger.md").write_text("# notes of somebody")
    Path("stranger-models", "out").mkdir(parents=True)
    Path("empty").write_text("")
    Path("bad.json").write_text('{"schema_version": 2, "model": "\\u001b[2J[bold]"}')
    for place in ("held.parquet/monday.parquet", "stranger-verdicts/verdicts-00000.parquet"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("of somebody")
    for folder, name, text in (
        ("stranger-page", "report.html", "<title>My results</title>"),
        ("stranger-record", "record.json", '{"mine": 1}'),
        ("stranger-weights", "model.safetensors", "mine"),
        ("stranger-state", "service.json", '{"mine": 1}'),
        ("study", "findings.json", '{"study": "tradi-mnist"}'),
    ):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, name).write_text(text)


def tree(place: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder: its size, and when it was changed."""
    return {
        str(path.relative_to(place)): (path.stat().st_size if path.is_file() else 0, path.stat().st_mtime_ns)
        for path in place.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_misuse_is_one_line_and_leaves_nothing(
    case: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(place)
    monkeypatch.setattr(sys, "argv", ["caveat", *case])
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    _, err = capfd.readouterr()
    assert tree(place) == before
    assert stop.value.code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("caveat: error: "), err
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert "CAVEAT_TRACEBACK" not in err, err  # an exception that is none of ours


def test_the_drill_is_of_every_command() -> None:
    group = typer.main.get_command(app)
    commands = {name for name in group.commands if name != "guard"}  # pyright: ignore[reportAttributeAccessIssue]
    commands |= {f"guard {name}" for name in group.commands["guard"].commands}  # pyright: ignore[reportAttributeAccessIssue]
    assert commands == {command for command, _, _ in WAYS}
    assert len(CASES) >= 300


NAMES = ["[/]", "[bold]x", "a\x1b[2Jb", ":smile:"]


def test_a_name_is_shown_as_it_is(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rich took them for markup: `[/]` was a traceback, and a path with `[bold]` was printed without it."""
    output = tmp_path / "o[bold]z"
    monkeypatch.setenv("COLUMNS", "200")

    def run(*line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["caveat", *line])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert not stop.value.code, err
        assert "\x1b" not in out + err
        return out + err

    shown = [name.replace("\x1b", "\\x1b") for name in NAMES]
    sets = [word for name in NAMES for word in ("--ood", f"{name}=noise:uniform")]
    out = run(*words("audit", AUDIT | FEW | {"-o": str(output), "--name": NAMES[2]}), *sets)
    cells = [cell.strip() for line in out.splitlines() for cell in line.replace("┃", "│").split("│")]
    for name in shown:
        assert f"observing {name}" in out
        assert name in cells
    assert f"Open {output / 'report.html'} in a browser" in out
    shutil.copytree(output, tmp_path / "two")
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    (tmp_path / "two" / "record.json").write_text(json.dumps(record | {"model": NAMES[2]}))
    out = run("compare", str(output), str(tmp_path / "two"), "-o", str(tmp_path / "c[/].html"))
    assert all(f"on {name}" in out for name in shown)
    assert f"Open {tmp_path / 'c[/].html'} in a browser" in out
    out = run("report", str(output), "-o", str(tmp_path / "r[bold].html"))
    assert f"Open {tmp_path / 'r[bold].html'} in a browser" in out
