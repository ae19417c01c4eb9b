"""`caveat report`: a file or a folder, of an audit or of a study, to its page."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from caveat.cli import report
from caveat.errors import CaveatError, OptionError
from caveat.records.findings import Findings

from ..report.conftest import make_record


def invoke(*arguments: str | Path):
    app = typer.Typer()
    app.command()(report.run)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def study() -> Findings:
    return Findings(
        caveat_version="0.1.0", created="2026-11-23T03:15:00Z", study="x", title="A study", source="A. Author, 2021",
        scale="smoke", seeds=[0], settings={},
    )  # fmt: skip


def test_an_audit_by_its_folder_or_its_file_gives_the_same_page(tmp_path: Path):
    make_record(scores=2, sets=1).save(tmp_path / "audit" / "record.json")
    for given, page in ((tmp_path / "audit", "a.html"), (tmp_path / "audit" / "record.json", "b.html")):
        result = invoke(given, "-o", tmp_path / page)
        assert result.exit_code == 0, result.output
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "<h1><code>runs/mnist-lenet</code></h1>" in text


def test_a_name_is_the_page_s_title_and_leaves_the_record_alone(tmp_path: Path):
    path = tmp_path / "record.json"
    make_record(scores=2, sets=1).save(path)
    before = path.read_bytes()
    assert invoke(tmp_path, "-o", tmp_path / "a.html", "--name", "Digits & co").exit_code == 0
    assert "<h1>Digits &amp; co</h1>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert path.read_bytes() == before


def test_a_study_by_its_folder_or_its_file(tmp_path: Path):
    study().save(tmp_path / "findings.json")
    for given in (tmp_path, tmp_path / "findings.json"):
        result = invoke(given, "-o", tmp_path / "s.html")
        assert result.exit_code == 0, result.output
        assert "<h1>A study</h1>" in (tmp_path / "s.html").read_text(encoding="utf-8")
    refused = invoke(tmp_path, "-o", tmp_path / "s.html", "--name", "other")
    assert isinstance(refused.exception, OptionError)
    assert "--name: expected an audit" in str(refused.exception)


def test_what_cannot_be_read_is_told(tmp_path: Path):
    missing = invoke(tmp_path, "-o", tmp_path / "p.html")
    assert isinstance(missing.exception, CaveatError)
    assert "record.json" in str(missing.exception)
    old = json.loads(make_record(scores=1, sets=0).model_dump_json()) | {"schema_version": 1}
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert "audit the model again" in str(invoke(tmp_path, "-o", tmp_path / "p.html").exception)
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b/record.json"]])
def test_compare_takes_folders(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from caveat.cli import compare

    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make_record(scores=2, sets=1).save(Path(name) / "record.json")
    app = typer.Typer()
    app.command()(compare.run)
    result = CliRunner().invoke(app, [*names, "-o", "two.html"])
    assert result.exit_code == 0, result.output
    assert "<code>a</code> and <code>b</code> side by side" in Path("two.html").read_text(encoding="utf-8")
    twice = CliRunner().invoke(app, ["a", "a/record.json", "-o", "two.html"])
    assert "expected every record once" in str(twice.exception)
