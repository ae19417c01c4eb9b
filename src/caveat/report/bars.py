"""Bars that need no script: parts of a whole, as the rectangles of an SVG one unit wide."""

from collections.abc import Sequence
from dataclasses import dataclass

from caveat.records.record import Conformal, Operating, Record
from caveat.report.shown import shown

__all__ = ["Bar", "guard_bar", "set_sizes", "size_legend", "violin"]

SIZES: list[tuple[int, str]] = [
    (0, "no class"),
    (1, "one"),
    (2, "two"),
    (3, "three"),
    (4, "four to nine"),
    (10, "ten or more"),
]
"""The smallest size of each group of set sizes, and its name."""
LAST_RANGE = 4
UP_TO = {4: "four", 5: "four or five", 6: "four to six", 7: "four to seven", 8: "four to eight"}
"""What the last range is called where no set has more classes."""


@dataclass(frozen=True)
class Bar:
    """One part of a bar: its class of style, where it starts, how wide it is (of 1), and what it says."""

    style: str
    start: str
    width: str
    title: str


def size_legend(item: Conformal) -> list[tuple[str, str]]:
    """Style and name of the groups of sizes that the sets may have."""
    most = max((len(shares) - 1 for shares in item.size_shares.values()), default=0)
    return [(f"s{i}", _named(i, most)) for i, (size, _) in enumerate(SIZES) if size <= most]


def _named(group: int, most: int) -> str:
    """The name of a group of sizes, of which none is above `most`."""
    return UP_TO.get(most, SIZES[group][1]) if group == LAST_RANGE else SIZES[group][1]


def set_sizes(item: Conformal, name: str) -> list[Bar]:
    """How the sizes of a set's conformal sets are shared out; none where the record has no sizes."""
    shares = item.size_shares.get(name, [])
    ends = [size for size, _ in SIZES[1:]] + [len(shares)]
    groups = [(f"s{i}", sum(shares[SIZES[i][0] : end], 0.0), _named(i, len(shares) - 1)) for i, end in enumerate(ends)]
    return _bars(groups)


def guard_bar(record: Record, guard: Operating, name: str) -> list[Bar]:
    """What a guard accepts of a set: right and wrong of the in-distribution one, all of an OOD one in the way."""
    share = guard.accepted[name]
    role = next((item.role for item in record.sets if item.name == name), "ood")
    if role == "test":
        wrong = share * guard.error
        return _bars([("right", share - wrong, "accepted and right"), ("wrong", wrong, "accepted, but wrong")])
    style = "wrong" if role == "ood" else "plain"
    return _bars([(style, share, "accepted")])


def violin(bins: Sequence[float]) -> str:
    """Outline of a shape as wide as 1 and as high as its bins, upwards and downwards: the path of an SVG."""
    if not bins:
        return ""
    step = 1 / len(bins)
    upper = "".join(f"V{-height:.3g}H{(place + 1) * step:.4g}" for place, height in enumerate(bins))
    lower = "".join(f"V{height:.3g}H{place * step:.4g}" for place, height in reversed(list(enumerate(bins))))
    return f"M0 0{upper}{lower}Z"


def _bars(parts: list[tuple[str, float, str]]) -> list[Bar]:
    bars: list[Bar] = []
    start = 0.0
    for style, width, title in parts:
        if width > 0:
            bars.append(Bar(style, f"{start:.5g}", f"{width:.5g}", f"{title}: {shown(width, 'percent')}"))
        start += width
    return bars
