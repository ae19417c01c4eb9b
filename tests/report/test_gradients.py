"""The section on gradients: there when they were observed, every number of it from the record, names inert."""

import re
from collections.abc import Callable

from caveat.records.gradients import GradientStatistic, MetaClassifier
from caveat.records.record import Record
from caveat.report import render
from caveat.report.bars import violin
from caveat.report.shown import shown

from .reading import EVIL, assert_alone, assert_inert, assert_policy, numbers_of, of, read


def with_gradients(record: Record, *, end: str = "") -> Record:
    sets = ["correct", "wrong", *(item.name for item in record.sets if item.role == "ood")]
    strips = [
        GradientStatistic(
            statistic=name + end, logarithmic=name == "norm", low=0.0123, high=45.6,
            median={key: round(0.789 + place, 3) for place, key in enumerate(sets)},
            bins={key: [0.0, 0.5, 1.0, 0.25] for key in sets},
        )
        for name in ("norm", "mean")
    ]  # fmt: skip
    learned = [
        MetaClassifier(
            score="meta_lasso" + end, penalty=3.25, weights={"conv/norm" + end: -1.37}, importances={"*/norm": 0.217}
        )
    ]
    return record.model_copy(update={"gradients": strips, "meta_classifiers": learned})


def test_every_number_is_in_the_record(record: Record) -> None:
    told = with_gradients(record)
    page = render(told)
    values = of(read(page), "data")
    numbers = numbers_of(told)
    for attributes, text in values:
        value, kind = float(attributes["value"] or "nan"), attributes["data-as"]
        assert value in numbers
        assert text == shown(value, kind)  # pyright: ignore[reportArgumentType]  (a kind)
    seen = {float(attributes["value"] or "nan") for attributes, _ in values}
    assert {0.0123, 45.6, 0.789, 1.789, 3.25, -1.37, 0.217} <= seen
    assert page.count('<svg class="violin sure"') == 2
    assert page.count('<svg class="violin own"') == 2
    assert '<a href="#gradients">' in page
    assert_alone(page)
    assert_policy(page)


def test_without_gradients_there_is_no_section(record: Record) -> None:
    page = render(record)
    assert 'id="gradients"' not in page
    assert '<a href="#gradients">' not in page


def test_names_are_inert(build: Callable[..., Record]) -> None:
    page = render(with_gradients(build(scores=2, sets=2, rename=lambda text: text + EVIL), end=EVIL))
    assert_inert(page)


def test_a_violin_is_as_wide_as_its_place_and_as_high_as_its_bins() -> None:
    assert violin([]) == ""
    path = violin([0.5, 1.0])
    assert path == "M0 0V-0.5H0.5V-1H1V1H0.5V0.5H0Z"
    assert len(re.findall("V", violin([0.1] * 32))) == 64
