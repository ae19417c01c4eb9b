import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caveat.errors import CaveatError, OptionError
from caveat.records.record import Record
from caveat.report.compare import render, write
from caveat.report.shown import shown, signed

from .reading import EVIL, assert_alone, assert_inert, assert_policy, assert_words, numbers_of, of, read


@pytest.fixture(scope="module")
def other(build: Callable[..., Record]) -> Record:
    """Less right and with fewer scores; one set is another one of the same name."""
    made = build(scores=8, full=True)
    plain = made.calibrations[0]
    accuracy = plain.summary.accuracy.model_copy(update={"value": 0.9612, "low": 0.956, "high": 0.9664})
    nll = plain.summary.nll.model_copy(update={"value": plain.summary.nll.value + 0.004})
    summary = plain.summary.model_copy(update={"accuracy": accuracy, "nll": nll})
    sets = [s.model_copy(update={"source": "notmnist_large"}) if s.name == "notmnist" else s for s in made.sets]
    return made.model_copy(
        update={"sets": sets, "calibrations": [plain.model_copy(update={"summary": summary}), *made.calibrations[1:]]}
    )


@pytest.fixture(scope="module")
def page(full: Record, other: Record) -> str:
    return render({"lenet": full, "resnet": other})


def test_every_number_is_in_a_record_or_the_difference_of_two(full: Record, other: Record, page: str) -> None:
    numbers, values = numbers_of(full, other), of(read(page), "data")
    assert len(values) > 300
    derived = [(float(a["value"] or "nan"), a["data-as"], text) for a, text in values if "data-derived" in a]
    for attributes, text in values:
        if "data-derived" not in attributes:
            value, kind = float(attributes["value"] or "nan"), attributes["data-as"]
            assert value in numbers
            assert text == shown(value, kind)  # pyright: ignore[reportArgumentType]  (a kind)
    assert len(derived) > 50
    for value, kind, text in derived:
        assert text == signed(value, kind)  # pyright: ignore[reportArgumentType]  (a kind)
    assert (0.9612 - full.calibrations[0].summary.accuracy.value, "share", "\N{MINUS SIGN}1.2") in derived
    assert ("plain", "+0.0040") in [(kind, text) for _, kind, text in derived]


def test_no_number_hides_among_the_words(full: Record, other: Record, page: str) -> None:
    assert_words(page, full, other)


def test_the_page_is_alone_and_says_what_may_run(page: str) -> None:
    assert_alone(page)
    assert_policy(page)
    assert len(of(read(page), "script")) == 1


def test_texts_of_the_records_are_inert(build: Callable[..., Record]) -> None:
    evil = build(scores=2, sets=2, rename=lambda text: text + EVIL, full=True)
    moved = evil.model_copy(update={"sets": [s.model_copy(update={"source": s.name}) for s in evil.sets]})
    text = render({"a" + EVIL: evil, "b" + EVIL: evil, "c" + EVIL: moved})
    reader = read(text)
    assert of(reader, "img") == []
    assert_inert(text)
    assert len(of(reader, "script")) == 1
    assert "49" not in "".join(reader.words).replace(" ", "")
    assert_alone(text)
    assert_policy(text)
    assert "a" + EVIL in [told for _, told in of(reader, "code")]


def test_verdicts_stand_where_they_belong(page: str) -> None:
    first = re.search(r'aria-label="Accuracy">(.*?)</table>', page, re.DOTALL)
    assert first
    rows = first[1].split("<tr>")[2:]
    assert ["clearly worse" in row for row in rows] == [True, *[False] * 6]
    assert ["the same" in row for row in rows] == [False, *[True] * 6]
    words = " ".join("".join(read(page).words).split())
    assert "resnet is clearly worse in accuracy; without clear difference in all else." in words
    assert "The set notmnist is not the same in lenet and resnet" in words
    assert "Only in lenet: the score margin." in words


def test_marks_share_a_scale(page: str) -> None:
    svg = re.search(r'aria-label="Accuracy">.*?<svg class="forest"[^>]*>(.*?)</svg>', page, re.DOTALL)
    assert svg
    rects = re.findall(r'class="(\w+)" x="([\d.]+)" y="(\d+)" width="([\d.]+)"', svg[1])
    (_, low, _, width), _, (name, other_low, line, other_width), _ = rects
    # 0.956 to 0.9664 against 0.9693 to 0.9773: from 8 to 92, one unit is (0.9773 - 0.956) / 84.
    unit = 84 / (0.9773 - 0.956)
    assert float(other_low) == pytest.approx(8, abs=0.02)
    assert float(other_width) == pytest.approx(0.0104 * unit, abs=0.02)
    assert float(low) == pytest.approx(8 + 0.0133 * unit, abs=0.02)
    assert float(low) + float(width) == pytest.approx(92, abs=0.02)
    assert (name, line) == ("worse", "14")


def test_records_that_share_nothing_still_give_a_page(build: Callable[..., Record], full: Record) -> None:
    bare = build(scores=1, sets=0, calibrated=False).model_copy(update={"calibrations": [], "scores": []})
    words = " ".join("".join(read(render({"a": full, "b": bare})).words).split())
    assert "The records share no calibration." in words
    assert "No OOD set is shared." in words
    assert "b is not comparable" in words


def test_six_large_records_make_a_page_of_bearable_size(large: Record) -> None:
    page = render({f"run{i}": large for i in range(6)})
    assert len(page.encode()) < 4_000_000
    assert_policy(page)


def test_the_same_records_give_the_same_bytes(full: Record, other: Record, page: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "compare.html"
    write({"lenet": full, "resnet": other}, target)
    assert target.read_text(encoding="utf-8") == page
    with pytest.raises(CaveatError, match="cannot write"):
        write({"lenet": full, "resnet": other}, target / "below.html")
    with pytest.raises(OptionError, match="expected 2 to 6"):
        write({"lenet": full}, target)


def test_comparing_needs_no_torch() -> None:
    code = "import sys, caveat.report.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
