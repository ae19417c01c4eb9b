"""About 260 hostile data sets: an audit says what is right and what was left out, or refuses in one line.

Of the two ways in which each kind of picture occurs one; all, and with every page written: `benchmarks/drills.py`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from caveat.report import page
from tests.conftest import shapes_unchecked
from tests.edges import hostile_folders
from tests.edges.audited_sets import all_sets, fault
from tests.edges.hostile_sets import Hostile

PICTURES = [case.name for case in hostile_folders.pictures(0)]
HALF = {name for number, name in enumerate(PICTURES) if number % 2 == number // 4 % 2}
SETS = [case for case in all_sets() if case.name in HALF or case.name not in PICTURES]


@pytest.fixture(autouse=True)
def as_quickly_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without pages, whose charts take ten times as long as all the rest, nor waiting for the disk, nor our types."""
    monkeypatch.setattr(page, "render", lambda record: f"<title>Caveat</title>{record.model_dump_json()}")
    monkeypatch.setattr(os, "fsync", lambda file: None)
    with shapes_unchecked():
        yield


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile, where we write such an archive
@pytest.mark.parametrize("case", SETS, ids=lambda case: case.name.encode("unicode_escape").decode())
def test_a_hostile_set_is_read_right_or_refused(case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "user"
    place.mkdir()
    monkeypatch.setenv("CAVEAT_DATA", str(place))
    assert fault(case, place) == ""


def test_there_are_about_two_hundred_and_more() -> None:
    assert len({case.name for case in SETS}) == len(SETS) >= 200
