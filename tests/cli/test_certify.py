"""caveat certify: verdicts as Parquet, gone on with after a stop, of one run alone."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from caveat.cli import certify
from caveat.cli.main import app
from caveat.errors import OptionError

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
        (["--seconds", "3"], "--seconds: it is the time of --method branch"),
        (["-o", "x.csv"], "-o: expected a name that ends in .parquet"),
    ],
)
def test_errors_teach(tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(app, arguments(tmp_path / "v.parquet", *more), catch_exceptions=False)
    assert not list(tmp_path.iterdir())
