"""caveat certify: verdicts as Parquet, gone on with after a stop, of one run alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from caveat.bounds import checker
from caveat.cli import certify
from caveat.cli import model as models
from caveat.cli.main import app
from caveat.errors import ModelError, OptionError

MODEL = "caveat.models:mlp(size=8, hidden=(6,))"


def arguments(output: Path, *more: object) -> list[str]:
    given = {"--model": MODEL, "--test": "digits:test+first=12", "--radius": 0.002, "-o": output}
    given |= dict(zip(more[::2], more[1::2], strict=True))
    return ["certify", *(str(word) for pair in given.items() for word in pair)]


def test_every_sample_has_a_verdict_and_a_second_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "verdicts.parquet"
    result = CliRunner().invoke(app, arguments(output), catch_exceptions=False)
    assert result.exit_code == 0
    whole = pq.read_table(output).to_pylist()
    assert [row["index"] for row in whole] == list(range(12))
    assert {row["verdict"] for row in whole} == {"verified", "falsified"}
    for row in whole:
        assert row["verdict"] == "falsified" if row["label"] != row["predicted"] else row["margin"] > 0
    assert f"12 samples: {sum(row['verdict'] == 'verified' for row in whole)} verified" in result.output

    other = tmp_path / "stopped.parquet"
    monkeypatch.setattr(certify, "OFTEN", 0.0)
    write, calls = certify._write, []

    def stopping(*given: object) -> None:
        write(*given)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(certify, "_write", stopping)
    CliRunner().invoke(app, arguments(other, "--batch", 4))
    assert len(pq.read_table(other)) == 8
    result = CliRunner().invoke(app, arguments(other, "--batch", 4), catch_exceptions=False)
    assert "holds 8 of 12 verdicts" in result.output
    again = pq.read_table(other).to_pylist()
    assert [(row["index"], row["verdict"]) for row in again] == [(row["index"], row["verdict"]) for row in whole]


def test_a_file_belongs_to_one_run(tmp_path: Path) -> None:
    output = tmp_path / "verdicts.parquet"
    CliRunner().invoke(app, arguments(output), catch_exceptions=False)
    before = output.read_bytes()
    with pytest.raises(OptionError, match=r"holds verdicts of a run with norm = 'inf', this run has '2'"):
        CliRunner().invoke(app, arguments(output, "--norm", 2), catch_exceptions=False)
    assert output.read_bytes() == before
    other = tmp_path / "mine.parquet"
    other.write_bytes(b"mine")
    with pytest.raises(OptionError, match=r"was not written by caveat certify"):
        CliRunner().invoke(app, arguments(other), catch_exceptions=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--radius", "-1"], "--radius: expected a number of at least 0"),
        (["--norm", "3"], "--norm: .*inf"),
        (["--method", "deepoly"], "--method: .*deeppoly"),
        (["--seconds", "3"], "--seconds: it is the time of --method alpha and branch, and of --transform"),
        (["-o", "x.csv"], "-o: expected a name that ends in .parquet"),
    ],
)
def test_errors_teach(tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(app, arguments(tmp_path / "v.parquet", *more), catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_transformations_are_certified_too(tmp_path: Path) -> None:
    output = tmp_path / "turned.parquet"
    ours = ["certify", "--model", MODEL, "--test", "digits:test+first=6", "-o", str(output), "--transform", "rotate=2",
            "--transform", "right=0:0.1", "--cells", "4"]  # fmt: skip
    result = CliRunner().invoke(app, ours, catch_exceptions=False)
    assert result.exit_code == 0
    rows = pq.read_table(output).to_pylist()
    assert [row["index"] for row in rows] == list(range(6))
    assert all(row["margin"] > 0 for row in rows if row["verdict"] == "verified")
    assert all(row["verdict"] == "falsified" for row in rows if row["label"] != row["predicted"])
    with pytest.raises(OptionError, match=r"holds verdicts of a run with cells = 4, this run has 5"):
        CliRunner().invoke(app, [*ours[:-1], "5"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--radius: expected either it or --transform, which say what is certified; got neither"),
        (["--radius", "0.1", "--transform", "rotate=3"], "got both"),
        (["--transform", "rotates=3"], "did you mean 'rotate'"),
        (["--transform", "rotate=much"], "expected rotate=x or rotate=least:largest, numbers, got 'rotate=much'"),
        (["--transform", "translate=1", "--transform", "right=2"], "right is given twice"),
        (["--transform", "rotate=3", "--method", "branch"], "--method: there is no 'branch'"),
        (["--radius", "0.1", "--cells", "3"], "--cells: it is the number of parts of --transform"),
        (["--transform", "rotate=1", "--norm", "2"], "--norm: it is of the ball of --radius; leave it out"),
    ],
)
def test_what_is_certified_is_said_once(tmp_path: Path, words: list[str], message: str) -> None:
    output = tmp_path / "none.parquet"
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(
            app,
            ["certify", "--model", MODEL, "--test", "digits:test", "-o", str(output), *words],
            catch_exceptions=False,
        )
    assert not output.exists()


def test_proofs_of_what_is_verified_are_written_once_and_checked(tmp_path: Path, capsys) -> None:
    output, folder = tmp_path / "verdicts.parquet", tmp_path / "proofs"
    result = CliRunner().invoke(app, arguments(output, "--proof", folder), catch_exceptions=False)
    verified = [row["index"] for row in pq.read_table(output).to_pylist() if row["verdict"] == "verified"]
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [*(f"{index:06d}.safetensors" for index in verified), checker.NETWORK]
    assert f"{len(verified)} of the {len(verified)} verified samples have a proof" in result.output
    assert f"Next: python -m caveat.bounds.checker {folder}" in result.output.replace("\n", " ")
    assert checker.main([str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == f"{len(verified)} accepted, 0 refused"
    assert told.splitlines()[0].removeprefix("network sha256 ") in result.output
    before = [file.read_bytes() for file in files]
    # a finished run once raised here, with proofs or without
    again = CliRunner().invoke(app, arguments(output, "--proof", folder), catch_exceptions=False)
    assert again.exit_code == 0
    assert "holds 12 of 12 verdicts" in again.output
    assert [file.read_bytes() for file in files] == before
    other = arguments(tmp_path / "other.parquet", "--proof", folder, "--radius", 0.003)
    with pytest.raises(OptionError, match=r"--proof: .* holds proofs of another network or run"):
        CliRunner().invoke(app, other, catch_exceptions=False)
    (folder / "copy.safetensors").write_bytes(before[0])
    assert checker.main([str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"{len(verified)} accepted, 0 refused"
    assert "repeated copy.safetensors: it is the same proof as another, and is not counted" in told
    (folder / "copy.safetensors").unlink()
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert checker.main([str(folder)]) == 1
    assert f"refused {files[0].name}: the file is cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--norm", "2"], OptionError, "--proof: proofs are of balls of --norm inf alone"),
        (["--model", "caveat.models:small_cnn(channels=1, size=8)"], ModelError, "no proof is written for "),
    ],
)
def test_what_cannot_be_proved_is_refused_before_any_work(tmp_path: Path, more: list[str], error, message) -> None:
    given = arguments(tmp_path / "v.parquet", "--proof", tmp_path / "proofs", *more)
    with pytest.raises(error, match=message):
        CliRunner().invoke(app, given, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_transformation_has_no_proof(tmp_path: Path) -> None:
    given = [word for word in arguments(tmp_path / "v.parquet", "--proof", tmp_path / "proofs") if word != "--radius"]
    given[given.index("0.002")] = "--transform=rotate=2"
    with pytest.raises(OptionError, match=r"--proof: proofs are of balls \(--radius\), not of --transform"):
        CliRunner().invoke(app, given, catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_file_forges_no_line_of_the_checker(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "proofs"
    CliRunner().invoke(app, arguments(tmp_path / "v.parquet", "--proof", folder), catch_exceptions=False)
    first = next(file for file in sorted(folder.iterdir()) if file.name != checker.NETWORK)
    (folder / "x\naccepted y: label 3\nz.safetensors").write_bytes(first.read_bytes()[:-1])
    assert checker.main([str(folder)]) == 1
    assert not any(line.startswith("accepted y") for line in capsys.readouterr().out.splitlines())


def test_proofs_are_made_of_verdicts_that_are_there_and_again_where_they_were_removed(tmp_path: Path) -> None:
    output, folder = tmp_path / "verdicts.parquet", tmp_path / "proofs"
    CliRunner().invoke(app, arguments(output), catch_exceptions=False)  # without proofs
    verdicts = output.read_bytes()
    whole: list[bytes] = []
    for _ in range(2):
        result = CliRunner().invoke(app, arguments(output, "--proof", folder), catch_exceptions=False)
        assert "holds 12 of 12 verdicts" in result.output
        files = sorted(folder.iterdir())
        assert f"{len(files) - 1} of the {len(files) - 1} verified samples have a proof" in result.output
        assert pq.read_table(output).equals(pq.read_table(pa.BufferReader(verdicts)))
        whole = whole or [file.read_bytes() for file in files]
        assert [file.read_bytes() for file in files] == whole
        files[0].unlink()


@pytest.mark.parametrize(("model", "said"), [("random:build", True), ("random:fixed", False), ("random:odd", True)])
def test_random_weights_are_said(model: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random_nets.py").write_text(
        "import torch\n\n"
        "def build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n\n"
        "def fixed():\n    net = build()\n    torch.nn.init.zeros_(net[1].weight)\n"
        "    torch.nn.init.zeros_(net[1].bias)\n    return net\n\n"
        "def odd(built=[]):\n    net = fixed()\n    built.append(0)\n"
        "    net.register_buffer(f'own{len(built)}', torch.zeros(1))\n    return net\n"  # of other names each time
    )
    monkeypatch.syspath_prepend(tmp_path)
    told: list[str] = []
    models.load(model.replace("random", "random_nets"), normalize="mnist", say=told.append, warn=True)
    assert bool(told) is said
    assert not said or "are random: what is said here holds for them" in told[0]


def test_the_checker_says_how_it_is_called(tmp_path: Path, capsys) -> None:
    none = tmp_path / "none.safetensors"
    (tmp_path / "empty").mkdir()
    for given, why in (
        ([], "no folder is named"), ([str(tmp_path / "empty")], "empty is no proof, and no folder of proofs"),
        ([str(none)], f"{none} is no proof"),
    ):  # fmt: skip
        assert checker.main(given) == 2
        told = capsys.readouterr().out
        assert why in told
        assert "usage: python -m caveat.bounds.checker FOLDER, where caveat certify --proof FOLDER" in told


def test_the_checker_names_the_network_that_is_missing(tmp_path: Path, capsys) -> None:
    (tmp_path / "0.safetensors").write_bytes(b"x")
    assert checker.main([str(tmp_path)]) == 1
    assert "refused 0.safetensors: there is no network.safetensors beside it" in capsys.readouterr().out


def test_of_a_network_in_half_precision_it_is_said_why_nothing_is_proved(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "halved_net.py").write_text(
        "from caveat import models\n\ndef build(generator):\n"
        "    return models.mlp(classes=10, channels=1, size=8, hidden=(64,), generator=generator).bfloat16()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = CliRunner().invoke(
        app, arguments(tmp_path / "a.parquet", "--model", "halved_net:build"), catch_exceptions=False
    )
    words = " ".join(run.output.split())
    assert "0 verified" in words
    assert "The network computes in bfloat16, whose rounding is part of every bound" in words
