import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from caveat.audits.record import Record
from caveat.errors import DataError
from caveat.report import render, write
from caveat.report.shown import shown

EVIL = "</script><img src=x onerror=\"alert('1')\">&\u2028{{ 7*7 }}"
VOID = {"meta", "img", "input", "rect", "br"}
REFERENCES = {"src", "href", "action", "formaction", "srcset", "poster", "data", "xlink:href", "background", "cite"}


class Reader(HTMLParser):
    """Collects elements as `(tag, attributes, own text)`, and the visible text outside `<data>`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self.elements.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        name, attributes, text = self.open.pop()
        assert name == tag, f"<{name}> closed by </{tag}>"
        self.elements.append((name, attributes, "".join(text)))

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)
            if not {name for name, _, _ in self.open} & {"script", "style", "data", "pre", "title"}:
                self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)
    else:
        yield node


def of(reader: Reader, tag: str) -> list[tuple[dict[str, str | None], str]]:
    return [(attributes, text) for name, attributes, text in reader.elements if name == tag]


@pytest.fixture(scope="module")
def page(record: Record) -> str:
    return render(record)


@pytest.fixture(scope="module")
def evil(build: Callable[..., Record]) -> str:
    return render(build(scores=2, sets=2, rename=lambda text: text + EVIL))


def test_every_number_shown_is_in_the_record(record: Record, page: str) -> None:
    numbers = {float(x) for x in leaves(record.model_dump()) if isinstance(x, int | float)}
    values = of(read(page), "data")
    assert len(values) > 500
    for attributes, text in values:
        value, kind = float(attributes["value"] or "nan"), attributes["data-as"]
        assert value in numbers, f"{value} is not in the record"
        assert text == shown(value, kind)  # pyright: ignore[reportArgumentType]  (a kind)


def test_no_number_hides_among_the_words(record: Record, page: str) -> None:
    strings = " ".join(str(x) for x in leaves(record.model_dump()))
    made = record.created[:16].replace("T", " ")
    told = {"95", "90", "99", "5"}  # the levels of intervals and thresholds, in fixed sentences
    for word in re.findall(r"[\d.,:-]*\d", " ".join(read(page).words).replace(made, "")):
        assert word in told or word in strings, f"{word} comes from nowhere"


def test_texts_of_the_record_are_inert(evil: str) -> None:
    reader = read(evil)
    assert {attributes.get("src", "")[:22] for attributes, _ in of(reader, "img")} == {"data:image/png;base64,"}
    assert not [name for _, attributes, _ in reader.elements for name in attributes if name.startswith("on")]
    assert len(of(reader, "script")) == 4
    assert len(of(reader, "style")) == 1
    assert "49" not in "".join(reader.words).replace(" ", "")  # {{ 7*7 }} was not evaluated
    data = json.loads(of(reader, "script")[0][1])
    assert data["scores"] == ["knn" + EVIL, "mahalanobis" + EVIL]


def test_the_page_refers_to_nothing_outside(page: str, evil: str) -> None:
    for text in (page, evil):
        reader = read(text)
        for _, attributes, _ in reader.elements:
            for name in REFERENCES & set(attributes):
                assert (attributes[name] or "").startswith(("#", "data:image/png;base64,"))
        style = of(reader, "style")[0][1]
        assert not re.search(r"url\(|@import|https?:", style)
        # What we write ourselves; the vendored code has loaders that the policy keeps from anything.
        assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\b|https?:|\beval\(", of(reader, "script")[-1][1])
        assert "sourceMappingURL" not in text
        assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _, _ in reader.elements}


def test_the_policy_allows_what_is_inlined_and_nothing_else(page: str) -> None:
    reader = read(page)
    policy = next(a["content"] for a, _ in of(reader, "meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"

    def hashed(text: str) -> str:
        return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = [text for attributes, text in of(reader, "script") if "type" not in attributes]
    assert rules["script-src"].split() == [hashed(text) for text in scripts]
    assert rules["style-src"].split() == [hashed(of(reader, "style")[0][1])]
    assert "unsafe" not in (policy or "")
    assert not [a for _, a, _ in reader.elements if "style" in a]  # style attributes would be refused


def test_the_same_record_gives_the_same_bytes(record: Record, page: str, tmp_path: Path) -> None:
    record.save(tmp_path / "record.json")
    assert render(Record.load(tmp_path / "record.json")) == page


def test_the_page_stays_small(large: Record, page: str) -> None:
    assert len(render(large).encode()) < 3_000_000
    assert len(page.encode()) < 1_500_000


def test_heavy_pictures_are_left_out_and_counted(record: Record) -> None:
    heavy = [item.model_copy(update={"png": "AAAA" * 10_000}) for item in record.pictures]
    page = render(record.model_copy(update={"pictures": heavy}))
    reader = read(page)
    shown_pictures = len(of(reader, "img"))
    assert 0 < shown_pictures < len(heavy)
    assert [t for a, t in of(reader, "data") if a.get("data-derived") == "count"] == [str(len(heavy) - shown_pictures)]
    assert len(page.encode()) < 3_000_000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sets": 0}, "No unknown set was given"),
        ({"pictures": False}, "The record has no pictures."),
        ({"scores": 0, "sets": 0, "pictures": False}, "The record has no sweep of thresholds."),
        ({"calibrated": False, "scores": 1}, "The score, "),
    ],
)
def test_poor_records_still_give_a_page(build: Callable[..., Record], options: dict[str, Any], told: str) -> None:
    reader = read(render(build(**({"scores": 2, "sets": 2} | options))))
    assert told in " ".join("".join(reader.words).split()) + " "


def test_a_record_without_calibrations_or_curves(build: Callable[..., Record]) -> None:
    bare = build(scores=2, sets=1).model_copy(
        update={"calibrations": [], "selective": [], "sweeps": [], "detections": []}
    )
    words = "".join(read(render(bare)).words)
    assert "no figures for known data" in words
    assert "no figures on mistakes" in words


def test_write_replaces_the_file_in_one_go(record: Record, page: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write(record, target)
    write(record, target)
    assert target.read_text(encoding="utf-8") == page
    assert [file.name for file in target.parent.iterdir()] == ["report.html"]


def test_write_names_a_place_it_cannot_use(record: Record, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report to"):
        write(record, tmp_path / "file" / "report.html")


def test_a_picture_that_is_not_base64_is_refused(record: Record) -> None:
    broken = [record.pictures[0].model_copy(update={"png": '"><script>'})]
    with pytest.raises(DataError, match="expected base64 of a PNG for mnist"):
        render(record.model_copy(update={"pictures": broken}))


def test_the_report_needs_no_torch() -> None:
    code = "import sys, caveat.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_licence_of_the_charting_code_is_in_the_page(page: str) -> None:
    assert "University of Washington Interactive Data Lab" in of(read(page), "pre")[0][1]
