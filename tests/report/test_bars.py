import pytest
from hypothesis import given
from hypothesis import strategies as st

from caveat.records.record import Conformal, Estimate, Operating, Record
from caveat.report.bars import guard_bar, set_sizes, size_legend

FLAT = Estimate(value=0.9, low=0.9, high=0.9)


def sets(shares: list[float]) -> Conformal:
    return Conformal(name="aps", error=0.1, coverage=FLAT, mean_size={"test": 1.0}, size_shares={"test": shares})


def test_sizes_are_gathered_and_laid_end_to_end() -> None:
    # Sizes 0 to 11. Four to nine: 0.05 + 5 * 0.01 = 0.1; ten or more: 0.02 + 0.08.
    found = set_sizes(sets([0.1, 0.4, 0.2, 0.1, 0.05, 0.01, 0.01, 0.01, 0.01, 0.01, 0.02, 0.08]), "test")
    assert [(bar.style, float(bar.start), float(bar.width)) for bar in found] == [
        ("s0", 0.0, 0.1),
        ("s1", 0.1, 0.4),
        ("s2", 0.5, 0.2),
        ("s3", 0.7, 0.1),
        ("s4", 0.8, 0.1),
        ("s5", 0.9, 0.1),
    ]
    assert found[4].title == "four to nine: 10.0\N{NARROW NO-BREAK SPACE}%"


def test_a_few_classes_have_a_short_legend() -> None:
    assert [name for _, name in size_legend(sets([0.1, 0.8, 0.1, 0.0]))] == ["no class", "one", "two", "three"]
    assert [name for _, name in size_legend(sets([0.0] * 11))][-2:] == ["four to nine", "ten or more"]
    for classes, name in {4: "four", 8: "four to eight", 9: "four to nine"}.items():
        assert size_legend(sets([0.0] * (classes + 1)))[-1][1] == name
    assert set_sizes(sets([0.0] * 8 + [1.0]), "test")[0].title.startswith("four to eight: ")
    assert set_sizes(sets([0.0, 1.0]), "elsewhere") == []
    assert [bar.style for bar in set_sizes(sets([0.0, 1.0, 0.0]), "test")] == ["s1"]  # nothing of no width


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=30))
def test_the_parts_make_the_whole(weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = set_sizes(sets(shares), "test")
    assert sum(float(bar.width) for bar in found) == pytest.approx(1, abs=1e-3)
    ends = [float(bar.start) + float(bar.width) for bar in found]
    assert [float(bar.start) for bar in found[1:]] == pytest.approx(ends[:-1], abs=1e-4)


def test_a_guard_s_answers(full: Record) -> None:
    guard = Operating(
        score="knn", calibration="none", keep=0.9, threshold=1.0,
        accepted={"mnist": 0.8, "kmnist": 0.3, "street": 0.5}, error=0.25, error_of_all=0.5,
    )  # fmt: skip

    def parts(name: str) -> list[tuple[str, float, float]]:
        return [(bar.style, float(bar.start), float(bar.width)) for bar in guard_bar(full, guard, name)]

    assert parts("mnist") == [("right", 0.0, 0.6), ("wrong", 0.6, 0.2)]  # a quarter of the 80 % is wrong
    assert parts("kmnist") == [("wrong", 0.0, 0.3)]
    assert parts("street") == [("plain", 0.0, 0.5)]
