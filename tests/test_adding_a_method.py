"""docs/adding-a-method.md, followed literally in a copy of the tree: files copied, changes made, contracts run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
ADDED = ("nearest_mean", "contrast", "searched_temperature", "relative_noise", "leap", "squared_error")
"""A score, a score of a new kind, a calibration, a posterior, an attack and an objective."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def changed(text: str, hunk: str) -> str:
    """The text after one hunk, whose old lines must stand in it once."""
    lines = [line or " " for line in hunk.splitlines()]
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kinds) for kinds in (" -", " +"))
    assert f"\n{text}".count(f"\n{old}") == 1, f"the page is not current: expected once\n{old}"
    return f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The tree after all that the page says."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "references", "vendor")
    for folder in ("src", "tests", "docs/skeletons"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for file in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / file, tree / file)
    for source, target in re.findall(r"^\$ cp (\S+) (\S+)$", PAGE, flags=re.MULTILINE):
        assert not (tree / target).exists()
        shutil.copy(tree / source, tree / target)
    for code in blocks("python"):
        target = re.match(r"# (tests/\S+)\n", code)
        if target:
            (tree / target[1]).write_text(code)
    for block in blocks("diff"):
        name, _, hunks = block.partition("\n")
        file = tree / name.removeprefix("--- ")
        for hunk in hunks.split("@@\n"):
            file.write_text(changed(file.read_text(), hunk))
    return tree


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "250"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=tree, env=surroundings, capture_output=True, text=True, check=False)


def pytest_of(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(tree, "pytest", "-p", "no:cacheprovider", "-vv", "--tb=line", *arguments)


def test_what_was_added_is_under_contract_and_keeps_it(copy):
    wanted = f"({' or '.join([*ADDED, 'test_tables', 'table'])}) and not export and not devices"
    found = pytest_of(copy, "tests/contracts", "tests/scores/test_nearest_mean.py", "-k", wanted)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    passed = [line for line in found.stdout.splitlines() if "PASSED" in line]
    for name in ADDED:
        assert sum(re.search(rf"[\[-]{name}[\]-]", line) is not None for line in passed) >= 4, name
    assert sum("test_nearest_mean.py" in line for line in passed) == 1
    assert sum("test_every_row_is_under_contract" in line for line in passed) == 6


def test_the_score_is_listed(copy):
    found = run(copy, "caveat", "list", "scores")
    assert found.returncode == 0, found.stderr
    row = next(line for line in found.stdout.splitlines() if "nearest_mean" in line)
    assert "features" in row
    assert "Distance to the nearest class mean" in row
    assert "contrast" in found.stdout


def test_a_score_with_the_wrong_sign_breaks_its_contract(copy):
    file = copy / "src" / "caveat" / "scores" / "nearest_mean.py"
    right = file.read_text()
    try:
        file.write_text(right.replace("return (features[:, None]", "return -(features[:, None]"))
        found = pytest_of(copy, "tests/contracts/test_scores.py", "-k", "nearest_mean and foreign")
    finally:
        file.write_text(right)
    assert found.returncode == 1
    assert "1 failed" in found.stdout
