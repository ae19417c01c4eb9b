"""`caveat compare`: records to one page, and a table on the terminal."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from caveat.cli import compare
from caveat.errors import DataError, OptionError
from caveat.records.record import Record

from ..report.conftest import make_record


@pytest.fixture
def records(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "lenet" / "record.json", tmp_path / "resnet" / "record.json"
    first = make_record(scores=3, sets=2, full=True)
    plain = first.calibrations[0]
    worse = plain.summary.accuracy.model_copy(update={"value": 0.9612, "low": 0.956, "high": 0.9664})
    changed = plain.model_copy(update={"summary": plain.summary.model_copy(update={"accuracy": worse})})
    first.save(paths[0])
    second = make_record(scores=2, sets=2, full=True)
    second.model_copy(update={"calibrations": [changed, *second.calibrations[1:]]}).save(paths[1])
    return paths


def invoke(*arguments: str | Path, width: int = 200):
    app = typer.Typer()
    app.command()(compare.run)
    previous = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        return CliRunner().invoke(app, [str(a) for a in arguments])
    finally:
        os.environ.pop("COLUMNS")
        if previous is not None:
            os.environ["COLUMNS"] = previous


def test_a_page_and_a_table(records: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke(*records, "-o", tmp_path / "out" / "two.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "two.html").read_text(encoding="utf-8")
    assert "<code>lenet</code> and <code>resnet</code>" in page
    lines = result.output.splitlines()
    accuracy = next(i for i, line in enumerate(lines) if "Accuracy" in line)
    assert [cell.strip() for cell in lines[accuracy].split("│")[1:4]] == ["Accuracy", "97.3 %", "96.1 %"]
    assert "\N{MINUS SIGN}1.2 clearly worse" in lines[accuracy + 1]
    assert "AUROC on notmnist, chosen" in result.output
    assert "97.3 %" in result.output
    assert "ECE, isotonic" in result.output
    assert "note Only in lenet: the score vim." in result.output
    assert f"Open {tmp_path / 'out' / 'two.html'} in a browser." in result.output.replace("\n", "")


def test_markup_of_names_is_shown_as_it_is(tmp_path: Path) -> None:
    record = make_record(scores=2, sets=1, rename=lambda text: text + "[red]x[/red]", full=True)
    for name in ("a[bold]", "b"):
        record.save(tmp_path / name / "record.json")
    result = invoke(tmp_path / "a[bold]" / "record.json", tmp_path / "b" / "record.json", "-o", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    assert "a[bold]" in result.output
    assert "notmnist[red]x[/red]" in result.output
    assert "mahalanobis[red]x[/red]" in result.output


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/record.json", "runs/b/record.json"], ["a", "b"]),
        (["monday.json", "tuesday.json"], ["monday", "tuesday"]),
        (["x/a/record.json", "y/a/record.json", "b.json"], ["x/a/record.json", "y/a/record.json", "b"]),
        (["record.json", "old.json"], ["record", "old"]),
    ],
)
def test_names(paths: list[str], names: list[str]) -> None:
    assert compare.names([Path(p) for p in paths]) == names


def test_a_record_given_twice_is_refused() -> None:
    with pytest.raises(OptionError, match=r"records: expected every record once, got a\.json twice"):
        compare.names([Path("a.json"), Path("b.json"), Path("a.json")])


def test_mistakes_of_the_caller(records: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="records: expected 2 to 6 to compare, got 1"):
        compare.run([records[0]], tmp_path / "x.html")
    with pytest.raises(DataError, match="record: cannot read"):
        compare.run([records[0], tmp_path / "none.json"], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_a_record_is_not_changed_by_a_comparison(records: tuple[Path, Path], tmp_path: Path) -> None:
    before = [Record.load(path) for path in records]
    compare.run(list(records), tmp_path / "x.html")
    assert [Record.load(path) for path in records] == before
