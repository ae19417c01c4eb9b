import math
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.records.record import Estimate
from caveat.report import caveats, compare, page, picks
from caveat.report.shown import THIN, Name, Value, between, estimate, markup, plain_text, shown

CASES = [
    (0.98931, "percent", f"98.9{THIN}%"),
    (0.8125, "share", "81.3"),  # 81.25 exactly: halves away from zero, as in JavaScript; Python's own rounding has 81.2
    (1.0, "percent", f"100.0{THIN}%"),
    (0.0012345, "fine", f"0.123{THIN}%"),
    (0.0012355, "fine share", "0.124"),
    (0.031249, "plain", "0.0312"),
    (-0.00001, "plain", "0.0000"),  # no minus before zero
    (-1.5, "plain", "\N{MINUS SIGN}1.5000"),
    (1234567.0, "count", "1,234,567"),
    (999, "count", "999"),
    (0.034, "seconds", f"0.03{THIN}s"),
    (312.4, "seconds", f"312{THIN}s"),
    (0, "score", "0"),
    (12.34567, "score", "12.35"),
    (0.00123456, "score", "0.001235"),
    (1234567.0, "score", "1.235e6"),
    (1e36, "plain", "1.000e36"),
    (-2.5e20, "seconds", f"\N{MINUS SIGN}2.500e20{THIN}s"),
    (1e107, "count", "1.000e107"),
    (1e30, "percent", f"1.000e32{THIN}%"),
    (999999999999999.0, "count", "999,999,999,999,999"),
    (-0.0000123456, "score", "\N{MINUS SIGN}1.235e-5"),
]


@pytest.mark.parametrize(("value", "kind", "text"), CASES)
def test_golden(value: float, kind: str, text: str) -> None:
    assert shown(value, kind) == text  # pyright: ignore[reportArgumentType]  (the cases are kinds)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1_000_000))
def test_a_share_is_off_by_at_most_half_a_digit(millionths: int) -> None:
    value = millionths / 1e6
    text = shown(value, "share")
    assert Decimal(text) == Decimal(value * 100).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)
    assert abs(float(text) - value * 100) <= 0.05 + 1e-9


@settings(derandomize=True, deadline=None)
@given(st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-12))
def test_a_score_keeps_four_digits(value: float) -> None:
    text = shown(value, "score").replace("\N{MINUS SIGN}", "-")
    assert float(text) == pytest.approx(value, rel=5.1e-4)


def test_an_estimate_reads_as_in_a_paper() -> None:
    value = Estimate(value=0.989, low=0.987, high=0.991)
    text = "".join(shown(p.value, p.kind) if isinstance(p, Value) else str(p) for p in estimate(value))
    assert text == f"98.9{THIN}% (98.7\N{EN DASH}99.1)"
    assert [p.kind for p in between(value, "fine") if isinstance(p, Value)] == ["fine share", "fine share"]


def test_markup_escapes_names_and_words() -> None:
    page = markup(["<i>", Name('"><script>'), Value(0.25)])
    assert "<i>" not in page
    assert "<script>" not in page
    assert '<data value="0.25" data-as="percent">25.0' in page


def test_too_few_for_an_interval_is_said_and_excludes_nothing():
    open_ended = Estimate(value=0.98, low=None, high=None)
    assert plain_text(estimate(open_ended)) == "98.0 % (too few to give an interval)"
    assert (open_ended.lowest, open_ended.highest) == (-math.inf, math.inf)
    assert Estimate.model_validate_json(open_ended.model_dump_json()) == open_ended
    closed = Estimate(value=0.5, low=0.25, high=0.75)
    assert (closed.lowest, closed.highest) == (0.25, 0.75)


def test_a_page_without_intervals_says_so_and_grades_nothing_as_trusted(build):
    def bare(value: Estimate) -> Estimate:
        return value.model_copy(update={"low": None, "high": None})

    made = build(scores=2)
    fields = ("auroc", "aupr_in", "aupr_out", "fpr_at_95_tpr")
    detections = [d.model_copy(update={key: bare(getattr(d, key)) for key in fields}) for d in made.detections]
    selective = [s.model_copy(update={key: bare(getattr(s, key)) for key in ("auroc", "aurc")}) for s in made.selective]
    calibrations = [
        item.model_copy(
            update={
                "summary": item.summary.model_copy(update={k: bare(getattr(item.summary, k)) for k in ("nll", "brier")})
            }
        )
        for item in made.calibrations
    ]
    parts = {"detections": detections, "selective": selective, "calibrations": calibrations}
    record = made.model_copy(update=parts)
    text = page.render(record)
    assert text.count("(too few to give an interval)") >= len(detections) + 2 * len(calibrations)
    lines = caveats.caveats(picks.pick(record))
    assert not [line for line in lines if line.level == "trust" and "mistakes" in plain_text(line.text)]
    assert "too few to give an interval" in compare.render({"one": record, "two": made})
