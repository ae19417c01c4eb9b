"""The table of benchmarks: what it reads, what it calls missed or worse, and that its page is what is recorded."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.scripts import benchmark

ROOT = Path(__file__).parents[1]
TARGETS = tomllib.loads((ROOT / "benchmarks" / "targets.toml").read_text())
table = benchmark("table")


def test_every_target_belongs_to_a_script_and_every_page_to_what_is_recorded() -> None:
    for name, rows in TARGETS.items():
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name
        for key, row in rows.items():
            assert row["text"], key
            assert not row.keys() - {"text", "most", "least", "why"}, key
    recorded = json.loads((ROOT / "benchmarks" / "recorded.json").read_text())
    assert recorded.keys() <= TARGETS.keys()
    assert (ROOT / "docs" / "benchmarks.md").read_text() == table.page(TARGETS, recorded), "run table.py --page"


def test_a_figure_is_found_by_its_key() -> None:
    assert table.at({"a": {"6x100": 3}}, "a.6x100") == 3
    assert table.at({"a": 3}, "a.b") is None
    assert table.at(None, "a") is None
    assert table.at({"a": "text"}, "a") is None


@pytest.mark.parametrize(
    ("value", "before", "row", "kept", "worse"),
    [
        (-1.6, -1.6, {"most": 0}, True, False),
        (-1.0, -1.6, {"most": 0}, True, True),
        (1.0, 0.9, {"most": 1.0}, True, False),
        (1.1, 0.9, {"most": 1.0}, False, True),
        (0.9, 1.0, {"least": 1.0}, False, False),
        (0.8, 1.0, {"least": 1.0}, False, True),
        (9.0, 1.0, {}, True, False),
    ],
)
def test_missed_and_worse_follow_the_direction(
    value: float, before: float, row: dict[str, float], kept: bool, worse: bool
) -> None:
    assert table.kept(value, row) is kept
    assert table.worse(value, before, row) is worse


def test_a_script_that_fails_says_why_in_its_row() -> None:
    rows = {"scores": {"x": {"text": "what", "most": 1.0}}}
    told = {"scores": {"date": "2026-01-01", "load": 0.1, "machine": "m", "seconds": 3}}
    assert "| what | no network | ≤ 1.0 |" in table.page(rows, {"scores": told["scores"] | {"error": "no network"}})
    assert "| what | **1.5** (missed) | ≤ 1.0 | `scores.py` | 2026-01-01, load 0.1 |" in table.page(
        rows, {"scores": told["scores"] | {"figures": {"x": 1.5}}}
    )
    assert "| what |  | ≤ 1.0 | `scores.py` | not yet |" in table.page(rows, {})
