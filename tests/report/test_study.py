"""The page and the Markdown of a study."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from caveat.errors import DataError
from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Shot, Table, cell
from caveat.report.study import markdown, render, write
from caveat.studies.kit import plots

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def findings(**changes: object) -> Findings:
    rows = [{"alpha": a, "sure": a / 10, "training": name} for name in ("plain", "<acet>") for a in (1.0, 2.0)]
    spec = plots.lines(rows, x="alpha", y="sure", colour="training", description="d", log_x=True)
    made = Findings(
        caveat_version="0", created="2026-01-02T03:04:05+00:00", study="s", title="A <b>study</b>", source="Someone",
        scale="small", seeds=[1, 2], settings={"epochs": 3, "<i>": "x"}, reduced=["less & less"],
        claims=[Claim(claim="it <works>", verdict="refuted", found="it does not")],
        tables=[
            Table(title="T", first="method", columns=["AUC", "|d|"], digits=2, note="a note", rows=[
                Row(label="ours <1>", cells=[cell([1.0, 3.0], "2.5"), Cell(text="inf", published="> 10")]),
                Row(label="none", cells=[Cell(), Cell(value=-0.5)]),
            ])
        ],
        figures=[Figure(title="F", spec=spec, caption="c")], shots=[Shot(title="S", png=PNG)], notes=["n"],
        seconds={"all": 1.5},
    )  # fmt: skip
    return made.model_copy(update=changes)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_holds_every_figure_escapes_every_text_and_needs_nothing_else() -> None:
    page = render(findings())
    assert page == render(findings())
    for text in ("2.00 ± 1.41", "2.5", "inf", "&gt; 10", "\N{MINUS SIGN}0.50", "not confirmed", "a note"):
        assert text in page, text
    for raw in ("<b>study</b>", "<works>", "<i>", "ours <1>", "<acet>"):
        assert raw not in page, raw
    parser = Tags()
    parser.feed(page)
    for tag, attributes in parser.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:image/png;base64,", "#")) or not value, (tag, value)
    assert sum("data-figure" in attributes for _, attributes in parser.tags) == 1


def test_a_study_without_charts_needs_no_charts_library() -> None:
    assert len(render(findings(figures=[]))) < 60_000


def test_markdown_has_ours_and_the_published_figure() -> None:
    text = markdown(findings())
    assert "| ours <1> | 2.00 ± 1.41 (2.5) | inf (> 10) |" in text
    assert "| method | AUC | \\|d\\| |" in text
    assert "| it <works> | not confirmed | it does not |" in text
    assert "- less & less" in text


def test_findings_survive_a_file_and_bad_ones_are_refused(tmp_path: Path) -> None:
    made = findings()
    made.save(tmp_path / "f.json")
    assert Findings.load(tmp_path / "f.json") == made
    write(made, tmp_path / "deep" / "r.html")
    assert (tmp_path / "deep" / "r.html").read_text(encoding="utf-8") == render(made)
    broken = json.loads((tmp_path / "f.json").read_text()) | {"scale": "huge"}
    (tmp_path / "g.json").write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"g\.json is not of schema 1: scale"):
        Findings.load(tmp_path / "g.json")
    with pytest.raises(DataError, match="not base64"):
        render(findings(shots=[Shot(title="S", png="###")]))
