"""The card of a guard: its figures are the guard's, and names of somebody's are no markup."""

import dataclasses
from pathlib import Path

import pytest
from tests.guard.test_watching import guard as fitted
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import DataError
from caveat.guard import Guard, artefact

guard = fitted


def test_the_card_says_what_is_guaranteed_and_what_of(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    held, wrong = made.decision.promise, made.decision.reference_wrong
    assert CliRunner().invoke(app, ["guard", "card", str(folder), "-o", str(tmp_path / "card.md")]).exit_code == 0
    text = (tmp_path / "card.md").read_text()
    assert text.startswith("---\nlibrary_name: caveat\n")
    assert "accepts a new in-distribution input with probability 95.0% or more" in text
    assert f"| accuracy | {1 - wrong.double().mean():.2%} |" in text
    assert f"| accepted | {held.kept:.2%} |" in text
    assert f"threshold {held.threshold:.6g}" in text
    for file in artefact.manifest(folder).files.values():
        assert f"| `{file.name}` | `{file.sha256}` |" in text
    assert made.card().partition("## Versions")[0] == text.partition("## Versions")[0]
    again = CliRunner().invoke(app, ["guard", "card", str(folder), "-o", str(tmp_path / "card.md")])
    assert again.exit_code == 0  # it replaces one of ours


def test_names_are_no_markup(guard: tuple[Guard, Path]) -> None:
    made = guard[0].decision
    evil = dataclasses.replace(made, classes=("a|b", "<script>", "[x](http://y)\n# z"))
    rows = [line for line in Guard(guard[0].model, evil).card().splitlines() if "script" in line or "http" in line]
    assert rows[0].startswith("| \\<script\\> | ")
    assert rows[1].startswith("| \\[x\\](http://y) \\# z | ")


def test_what_turns_the_direction_of_reading_is_shown_as_an_escape(guard: tuple[Guard, Path]) -> None:
    made = guard[0]
    classes = ("a\u202etxt.exe", *made.decision.classes[1:])
    text = Guard(made.model, dataclasses.replace(made.decision, classes=classes)).card()
    assert "\u202e" not in text
    assert r"a\\u202etxt.exe" in text


def test_a_card_of_changed_files_is_not_written(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    guard[0].save(tmp_path / "guard")
    (path,) = (tmp_path / "guard").glob("model-*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is not the file that was written"):
        artefact.card(tmp_path / "guard")
