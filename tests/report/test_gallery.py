"""Committed pages are what their records give today."""

from pathlib import Path

import pytest

from caveat.records.findings import Findings
from caveat.records.record import Record
from caveat.report import page, study

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
AUDITS = sorted(GALLERY.glob("*/record.json"))
STUDIES = sorted(GALLERY.glob("*/findings.json"))


@pytest.mark.parametrize("path", AUDITS, ids=lambda path: path.parent.name)
def test_a_page_of_an_audit_is_current(path: Path) -> None:
    record = Record.load(path)
    assert (path.parent / "report.html").read_text(encoding="utf-8") == page.render(record), "run caveat report"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_page_of_a_study_is_current(path: Path) -> None:
    findings = Findings.load(path)
    assert (path.parent / "report.html").read_text(encoding="utf-8") == study.render(findings), "run caveat report"


def test_there_are_pages() -> None:
    assert AUDITS
    assert STUDIES
