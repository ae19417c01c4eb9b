"""Reads a page as a browser would, without running it; and what every page of ours must be."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

EVIL = "</script><img src=x onerror=\"alert('1')\">&\u2028{{ 7*7 }}"
VOID = {"meta", "img", "input", "br"}
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


def assert_alone(page: str) -> None:
    """The page refers to nothing outside itself."""
    reader = read(page)
    for _, attributes, _ in reader.elements:
        for name in REFERENCES & set(attributes):
            assert (attributes[name] or "").startswith(("#", "data:image/png;base64,"))
    style = of(reader, "style")[0][1]
    assert not re.search(r"url\(|@import|https?:", style)
    # What we write ourselves; the vendored code has loaders that the policy keeps from anything.
    assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\b|https?:|\beval\(", of(reader, "script")[-1][1])
    assert "sourceMappingURL" not in page
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _, _ in reader.elements}


def assert_inert(page: str) -> None:
    """No text has become markup: no handler, and no attribute whose name is a piece of a torn one."""
    names = {name for _, attributes, _ in read(page).elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or not re.fullmatch(r"[a-zA-Z0-9:-]+", name)]


def assert_policy(page: str) -> None:
    """The policy allows what is inlined and nothing else."""
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


def assert_words(page: str, *records: Any) -> None:
    """No number hides among the words: each is a text of a record, or in a fixed sentence."""
    strings = " ".join(str(x) for record in records for x in leaves(record.model_dump()))
    made = {record.created[:16].replace("T", " ") for record in records}
    told = {"95", "90", "99", "5"}  # the levels of intervals and thresholds, in fixed sentences
    words = " ".join(read(page).words)
    for date in made:
        words = words.replace(date, "")
    for word in re.findall(r"[\d.,:-]*\d", words):
        assert word in told or word in strings, f"{word} comes from nowhere"


def numbers_of(*records: Any) -> set[float]:
    return {float(x) for record in records for x in leaves(record.model_dump()) if isinstance(x, int | float)}
