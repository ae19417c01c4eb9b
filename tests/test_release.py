"""What a release rests on: one version, commands that take nothing of the user's, a package without its workshop."""

import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import caveat

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_has_one_home():
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert version("caveat") == caveat.__version__, "the environment is older than the sources: make setup"
    assert f"## [{caveat.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_clean_removes_what_commands_made_and_nothing_of_the_users(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("runs/mine", "guard", "site", "dist", ".venv"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("hours of training")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "runs/mine/file").exists()
    assert (tmp_path / "guard/file").exists()
    assert not any((tmp_path / name).exists() for name in ("site", "dist", ".venv"))


def test_hooks_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint: setup\n")[2].partition("\n\n")[0]
    programs = {line.split()[0] for line in lint.splitlines()}
    assert {hook["entry"].split()[0] for hook in hooks} == programs


def test_templates_and_citation_can_be_read():
    for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff", ROOT / "examples" / "github-workflow.yml"]:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
