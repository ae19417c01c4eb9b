"""The README as its reader meets it: its Python runs, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from caveat.cli.main import app
from tests.conftest import shapes_unchecked
from tests.readme import blocks, commands, run_python

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
WORKFLOW = (ROOT / "examples" / "github-workflow.yml").read_text()


def parsed(line: str) -> None:
    """Parse a command as the command line does, without running it."""
    command, arguments = get_command(app), shlex.split(line)[1:]
    context = typer.Context(command, info_name="caveat")
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
        context = typer.Context(command, info_name=name, parent=context)
    command.parse_args(context, arguments)


def test_its_python_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 8 <= len(blocks(README, "python")[0].splitlines()) <= 12, "ten lines on the reader's own model"
    with shapes_unchecked():  # as the reader runs it
        found = run_python(README)
    assert Path("report.html").stat().st_size > 100_000
    assert Path("guard/manifest.json").exists()
    assert found["verdict"].accepted.float().mean() > 0.5
    assert found["record"].detections[0].ood == "cars"


@pytest.mark.parametrize("line", commands(README) + commands(WORKFLOW))
def test_its_commands_are_those_of_the_command_line(line):
    if line != "caveat --help":
        parsed(line)


def test_a_command_that_does_not_exist_is_noticed():
    assert len(commands(README)) >= 6
    assert len(commands(WORKFLOW)) >= 1
    with pytest.raises(Exception, match="such option"):
        parsed("caveat audit --no-such-option -o out")
    with pytest.raises(AssertionError, match="no command"):
        parsed("caveat bless")


def test_its_links_lead_somewhere_and_it_is_short():
    links = re.findall(r"\]\(([^)#]+)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(README.splitlines()) < 150


def test_its_make_targets_and_extras_exist():
    makefile, project = ((ROOT / name).read_text() for name in ("Makefile", "pyproject.toml"))
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for extra in re.findall(r"\.\[(\w+)\]", README):
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra
    for script in re.findall(r"python (benchmarks/\w+\.py)", README):
        assert (ROOT / script).exists(), script
