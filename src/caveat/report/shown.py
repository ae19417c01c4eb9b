"""The one way a number is written in the report.

`shown.js` holds the same rules for the numbers that change under the reader's hand; a browser test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from markupsafe import Markup

from caveat.records.record import Estimate

__all__ = ["THIN", "Kind", "Name", "Part", "Value", "between", "estimate", "markup", "plain_text", "shown", "signed"]

Kind = Literal["percent", "share", "fine", "fine share", "plain", "score", "given", "count", "seconds"]
"""percent: 0.9893 as 98.9 %; share: the same without the sign; fine: percent with three decimals, and its share;
plain: four decimals; score: four significant digits; given: as a person wrote it."""

BARE: dict[str, Kind] = {"percent": "share", "fine": "fine share"}
"""How the ends of an interval are written, where its value carries the sign."""

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

HUGE = 1e15
"""From here on no decimals are known: four significant digits are shown, as of a score."""

TOO_FEW = "(too few to give an interval)"


@dataclass(frozen=True)
class Value:
    """A number of the record and how it is written."""

    value: float | int
    kind: Kind = "percent"


@dataclass(frozen=True)
class Name:
    """A name of the record (a set, a score, a calibration), set in the code font."""

    text: str


Part = str | Value | Name


def shown(value: float | int, kind: Kind) -> str:
    """Write a number.

    >>> shown(0.98931, "percent") == "98.9" + THIN + "%"
    True
    >>> [shown(0.98931, "share"), shown(0.03127, "plain"), shown(1234567.0, "count"), shown(0.0000123456, "score")]
    ['98.9', '0.0313', '1,234,567', '1.235e-5']
    >>> [shown(0.30, "given"), shown(5.0, "given")]
    ['0.3', '5']
    """
    match kind:
        case "percent":
            text = _fixed(value * 100, 1) + THIN + "%"
        case "share":
            text = _fixed(value * 100, 1)
        case "fine":
            text = _fixed(value * 100, 3) + THIN + "%"
        case "fine share":
            text = _fixed(value * 100, 3)
        case "plain":
            text = _fixed(value, 4)
        case "count":
            text = f"{Decimal(_fixed(value, 0)):,}" if abs(value) < HUGE else _significant(value)
        case "seconds":
            text = _fixed(value, 2 if abs(value) < 10 else 0) + THIN + "s"
        case "score":
            text = _significant(value)
        case "given":
            text = f"{value:g}"
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def signed(value: float, kind: Kind) -> str:
    """Write a difference: a sign before what is not zero as written.

    >>> [signed(0.0123, "share"), signed(0.0001, "share"), signed(-0.01, "plain").replace(MINUS, "-")]
    ['+1.2', '0.0', '-0.0100']
    """
    text = shown(value, kind)
    return f"+{text}" if value > 0 and text.strip("0.%" + THIN) else text


def _fixed(value: float | int, digits: int) -> str:
    if abs(value) >= HUGE:
        return _significant(value)
    # Halves away from zero on the exact binary value: what JavaScript's toFixed does.
    text = str(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))
    return text.removeprefix("-") if not text.strip("-0.") else text


def _significant(value: float | int) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    power = int(exponent)
    return f"{float(value):.{3 - power}f}" if -4 <= power <= 3 else f"{mantissa}e{power}"


def between(interval: Estimate, kind: Kind = "percent") -> list[Part]:
    """The interval alone, without a sign: `(98.7-99.1)`; or that there are too few samples to give one."""
    if interval.low is None or interval.high is None:
        return [TOO_FEW]
    bare = BARE.get(kind, kind)
    return ["(", Value(interval.low, bare), "\N{EN DASH}", Value(interval.high, bare), ")"]


def estimate(value: Estimate, kind: Kind = "percent") -> list[Part]:
    """A value and its interval: `98.9 % (98.7-99.1)`."""
    return [Value(value.value, kind), " ", *between(value, kind)]


def plain_text(parts: Sequence[Part]) -> str:
    """Words and numbers without markup, for a terminal.

    >>> plain_text(["accepts ", Value(0.5), " of ", Name("near")])
    'accepts 50.0 % of near'
    """
    words = [shown(p.value, p.kind) if isinstance(p, Value) else p.text if isinstance(p, Name) else p for p in parts]
    return "".join(words).replace(THIN, " ")


def markup(parts: Part | Sequence[Part]) -> Markup:
    """Escaped HTML: a number becomes `<data value="the record's number">what is shown</data>`.

    >>> markup(["knn < ", Value(0.5), Name("<b>")]).replace(THIN, " ")
    Markup('knn &lt; <data value="0.5" data-as="percent">50.0 %</data><code>&lt;b&gt;</code>')
    """
    if isinstance(parts, str):
        return Markup.escape(parts)
    if isinstance(parts, Value):
        written = shown(parts.value, parts.kind)
        return Markup('<data value="{}" data-as="{}">{}</data>').format(repr(parts.value), parts.kind, written)
    if isinstance(parts, Name):
        return Markup("<code>{}</code>").format(parts.text)
    return Markup("").join(markup(part) for part in parts)
