"""Damaged files of every kind that Caveat reads: refused in one line, or the answer is as before.

Of the 552 ways every second one; all of them, and from other seeds: `benchmarks/drills.py`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caveat.report import page
from tests.conftest import shapes_unchecked
from tests.edges import fuzzed_files
from tests.edges.audited_sets import importable
from tests.edges.fuzzed_files import DAMAGES, TARGETS, Fuzz, fuzzes

FINDINGS = Path(__file__).parents[2] / "docs" / "gallery" / "adversarial-mnist" / "findings.json"

WAYS = len(TARGETS) * (1 + len(DAMAGES))


@dataclass(frozen=True)
class Prepared:
    """A folder with a file of every kind, and what each command answers there."""

    base: Path
    work: Path
    right: dict[int, Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """With no charts on the pages, and without waiting for the disk."""
    place = tmp_path_factory.mktemp("fuzzed")
    (place / "base").mkdir()
    with pytest.MonkeyPatch.context() as patch, shapes_unchecked():
        patch.setattr(page, "payload", lambda found: {})
        patch.setattr(os, "fsync", lambda file: None)
        patch.setenv("CAVEAT_DATA", ".")
        with importable(place / "base"):
            fuzzed_files.prepared(place / "base", FINDINGS.read_text(encoding="utf-8"))
        with importable(place):
            yield Prepared(place / "base", place / "work", fuzzed_files.answers(place / "base", place / "right"))


@pytest.mark.parametrize("damage", [*DAMAGES, "swapped"])
def test_a_damaged_file_is_refused_or_answers_as_before(damage: str, prepared: Prepared) -> None:
    """One damage to every second file, each with a seed of its own; the next damage to the others."""
    found = {
        str(fuzz): fuzzed_files.fault(fuzz, prepared.base, prepared.work, prepared.right)
        for fuzz in fuzzes(0, WAYS)
        if fuzz.damage == damage and (fuzz.seed + fuzz.seed // len(TARGETS)) % 2
    }
    assert {name: fault for name, fault in found.items() if fault} == {}


def test_there_are_five_hundred() -> None:
    assert len(set(map(str, fuzzes(0, WAYS)))) >= 500


@pytest.mark.parametrize("name", ["trained/swag.safetensors", "trained/checkpoint.safetensors"])
def test_one_bit_of_what_a_training_left_is_noticed(name: str, prepared: Prepared) -> None:
    """They carried no hash: an altered posterior was audited, an altered checkpoint gone on with."""
    target = next(one for one in TARGETS if one.file == name)
    found = [fuzzed_files.fault(Fuzz(target, "flipped", seed), *vars(prepared).values()) for seed in range(20)]
    assert found == [""] * 20
