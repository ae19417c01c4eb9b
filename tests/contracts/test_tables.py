"""Every row of every table is under contract, and its docstring says what it computes and whose idea it is."""

import dataclasses
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from caveat import attacks, calibration, metrics, objectives, posteriors, scores

ROOT = Path(__file__).parents[2]
PACKAGES = (scores, calibration, posteriors, attacks, objectives, metrics)
NO_METHODS = {"KINDS", "SOURCES"}
"""Tables of posteriors whose entries are the rows of the others once more: by class, and by what they are made from."""


def rows(package: ModuleType) -> dict[str, Any]:
    """Every row of every table of a package, by its name."""
    found: dict[str, Any] = {}
    for table in package.__all__:
        if table.isupper() and isinstance(getattr(package, table), Mapping) and table not in NO_METHODS:
            found |= getattr(package, table)
    return found


def contracts(package: ModuleType) -> list[ModuleType]:
    """The modules `test_<package>*.py` beside this one."""
    stem = package.__name__.rpartition(".")[2]
    return [
        importlib.import_module(f"tests.contracts.{file.stem}")
        for file in ROOT.glob(f"tests/contracts/test_{stem}*.py")
    ]


def promises(module: ModuleType) -> Iterator[str]:
    """For every test function, every name that it is parametrised by."""
    for thing in vars(module).values():
        if inspect.isclass(thing) and thing.__name__.startswith("Test"):
            tests = [test for name, test in vars(thing).items() if name.startswith("test")]
        elif inspect.isfunction(thing) and thing.__name__.startswith("test"):
            tests = [thing]
        else:
            continue
        for test in tests:
            marks = [*getattr(test, "pytestmark", []), *(getattr(thing, "pytestmark", []) if test is not thing else [])]
            values = [value for mark in marks if mark.name == "parametrize" for value in mark.args[1]]
            yield from {name for value in values if isinstance(name := getattr(value, "id", value), str)}


def counted(package: ModuleType) -> dict[str, int]:
    """How many contract tests each row has."""
    found = Counter(name for module in contracts(package) for name in promises(module))
    return {name: found[name] for name in rows(package)}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_row_is_under_contract(package):
    found = counted(package)
    assert found
    assert not [name for name, tests in found.items() if not tests], "no contract test is parametrised by these rows"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_row_of_a_table_that_no_contract_reads_is_missed(package, monkeypatch):
    monkeypatch.setattr(package, "FROM_NOTHING", {"toy": len}, raising=False)
    monkeypatch.setattr(package, "__all__", [*package.__all__, "FROM_NOTHING"])
    assert counted(package)["toy"] == 0


def docstring(row: Any) -> str:
    """Of a row's function, of what it is fitted by, or of an objective's class; of a variant, of the whole method."""
    thing = row[-1] if isinstance(row, tuple) else type(row) if dataclasses.is_dataclass(row) else row
    own = thing.__doc__ or ""
    return own if "Source:" in own else getattr(inspect.getmodule(thing), "fit", thing).__doc__ or ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_docstring_has_a_formula_and_a_source(package):
    for name, row in rows(package).items():
        text = docstring(row)
        assert text.strip(), name
        assert len(text.strip().split("\n")[0]) > 15, f"{name}: its first line says what it is"
        assert "Formula:" in text, f"{name}: Formula: what it computes"
        assert len(text.partition("Source:")[2].split()) > 2, f"{name}: Source: author, title, venue, equation"


def test_there_is_one_dialect_of_docstrings():
    for file in (ROOT / "src" / "caveat").rglob("*.py"):
        lines = [line.strip() for line in file.read_text().splitlines()]
        assert not {"References", "Reference", "Reference:", "References:", "Source"} & set(lines), file


def test_whoever_is_compared_with_has_a_name():
    word = "riv" + "al"
    files = [file for folder in ("src", "tests") for file in (ROOT / folder).rglob("*.py")] + [
        *ROOT.glob("docs/**/*.md")
    ]
    for file in files:
        assert word not in file.read_text().lower().replace(f"{word}s.py", "").replace(f'"{word}s"', ""), file
