"""Every kind of network, in everything that is done with one: right, or refused in one sentence; never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reach.kinds import GROUPS, KINDS
from tests.reach.page import PAGE, Row, read, written

SAID = read(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> dict[str, Row]:
    """The rows of the kinds that are asked for, as a user has them: without the checks of shapes in tests."""
    asked = [item.callspec.params["name"] for item in request.session.items
             if item.path == request.path and hasattr(item, "callspec")]  # fmt: skip
    command = [sys.executable, "-m", "tests.reach.page", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", KINDS)
def test_what_the_page_says_of_a_network_is_so(name: str, found: dict[str, Row]) -> None:
    assert {column: " ".join(told.split()).replace("|", "/") for column, told in found[name].items()} == SAID[name]


def test_the_page_holds_every_kind_once() -> None:
    assert sum(map(len, GROUPS.values())) == len(KINDS) >= 60
    assert written(SAID) == PAGE.read_text(encoding="utf-8"), "run python -m tests.reach.page"
