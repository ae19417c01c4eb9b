"""The section on attacks: there when they were made, every number of it from the record, names inert."""

from collections.abc import Callable

import pytest

from caveat.errors import DataError
from caveat.records.attack import (
    Attacked,
    AttackedPicture,
    AttackedRadius,
    Perturbation,
    Smallest,
    Transformed,
    TransformedPicture,
)
from caveat.records.base import Estimate
from caveat.records.record import Record
from caveat.report import render
from caveat.report.payload import payload
from caveat.report.picks import pick
from caveat.report.shown import shown

from .reading import EVIL, assert_alone, assert_inert, assert_policy, numbers_of, of, read


def with_attack(record: Record, *, end: str = "", png: str | None = None) -> Record:
    picture = png or record.pictures[0].png
    radii = [
        AttackedRadius(radius=radius, accuracy=accuracy, low=accuracy - 0.0213, high=accuracy + 0.0117)
        for radius, accuracy in ((0.0, 0.9731), (0.05, 0.6142), (0.137, 0.0829))
    ]
    worst = AttackedPicture(
        index=8341, radius=0.05, label="four" + end, predicted="nine" + end, confidence=0.8765,
        before=picture, after=picture, change=picture,
    )  # fmt: skip
    near = Perturbation(
        index=8342, distance=0.03456, label="five" + end, predicted="six" + end, confidence=0.5123, before=picture,
        after=picture, change=picture,
    )  # fmt: skip
    small = Smallest(
        attack="FMN" + end, samples=29, found=17, masked=11, quartiles=[0.0411, 0.0522, None], nearest=[near]
    )
    found = Attacked(
        attack="PGD, 40 steps" + end, norm="inf", samples=211, radii=radii, pictures=[worst], smallest=small
    )
    turned = TransformedPicture(
        index=8343, label="two" + end, predicted="seven" + end, confidence=0.6789, change="rotated" + end,
        before=picture, after=picture,
    )  # fmt: skip
    shares = (Estimate(value=value, low=value - 0.11, high=value + 0.01) for value in (0.9345, 0.7234, 0.3123))
    clean, accuracy, verified = shares
    moved = Transformed(
        ranges={"rotate": [-5.5, 5.5]}, attack="grid" + end, samples=31, clean=clean, accuracy=accuracy,
        certified_by="deeppoly", verified=verified, seconds=121, pictures=[turned],
    )  # fmt: skip
    alone = moved.model_copy(update={"verified": None, "seconds": None, "why_not": "no bounds for Sin" + end})
    return record.model_copy(update={"attacked": [found], "transformed": [moved, alone]})


def test_every_number_is_in_the_record(record: Record) -> None:
    told = with_attack(record)
    page = render(told)
    numbers = numbers_of(told)
    for attributes, text in of(read(page), "data"):
        value = float(attributes["value"] or "nan")
        assert value in numbers
        assert text == shown(value, attributes["data-as"])  # pyright: ignore[reportArgumentType]  (a kind)
    seen = {float(attributes["value"] or "nan") for attributes, _ in of(read(page), "data")}
    assert {0.9731, 0.6142, 0.0829, 0.137, 211, 8341, 0.8765} <= seen
    assert {29, 17, 11, 0.0411, 0.0522, 8342, 0.03456, 31, -5.5, 0.9345, 0.7234, 0.3123, 121, 8343, 0.6789} <= seen
    assert "none found" in page
    assert "Nothing is certified, since no bounds of this network are known: no bounds for Sin" in page
    assert '<a href="#attacked">' in page
    assert "no value of the input changes by more than the radius" in page
    assert_alone(page)
    assert_policy(page)


def test_the_chart_gets_every_radius(record: Record) -> None:
    (rows,) = payload(pick(with_attack(record)))["attacked"]
    assert [row["radius"] for row in rows] == [0.0, 0.05, 0.137]
    assert rows[1]["accuracy"] == 0.6142
    assert payload(pick(record))["attacked"] == []


def test_without_attacks_there_is_no_section(record: Record) -> None:
    page = render(record)
    assert 'id="attacked"' not in page
    assert '<a href="#attacked">' not in page


def test_names_are_inert(build: Callable[..., Record]) -> None:
    page = render(with_attack(build(scores=2, sets=2, rename=lambda text: text + EVIL), end=EVIL))
    assert_inert(page)


def test_a_picture_that_is_none_is_refused(record: Record) -> None:
    with pytest.raises(DataError, match="expected base64 of a PNG for 8342"):
        render(with_attack(record, png="<script>"))


def test_the_record_keeps_it(record: Record, tmp_path) -> None:
    told = with_attack(record)
    told.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == told
