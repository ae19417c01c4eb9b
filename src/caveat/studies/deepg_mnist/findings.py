"""What the study of DeepG shows: certified shares and time by lines and by intervals, published shares beside them."""

from collections.abc import Mapping

from caveat.records.findings import Cell, Claim, Findings, Row, Scale, Table
from caveat.studies.kit import common
from caveat.studies.kit.published import published

__all__ = ["Judged", "conclude"]

Judged = Mapping[str, Mapping[str, float]]
"""Of `network`, `lines`, and on fewer digits `few` (lines) and `interval`, the figures by name."""


def conclude(scale: Scale, seed: int, digits: int, few: int, cells: int, found: Mapping[str, Judged]) -> Findings:
    """Findings from every transformation's figures."""
    printed, smoke = published("deepg_mnist"), scale == "smoke"
    fewer = f"The first {digits} digits, {few} of them for the comparison with intervals; published: 100."
    return common.findings(
        study="deepg-mnist", title="DeepG: digits certified against geometric transformations", source=printed.source,
        scale=scale, seeds=[seed],
        settings={"digits": digits, "digits for intervals": few, "largest number of parts": cells},
        reduced=[] if scale == "full" else [fewer],
        claims=[] if smoke else [_claim(found)],
        notes=["The networks are CGT's, trained with intervals of transformed pictures; the published figures are of "
               "DeepG's own networks. Lines: ranges are halved until every part is proved; intervals: CGT's parts.",
               *(["Smoke: a toy, to see that everything works; the figures mean nothing."] if smoke else [])],
        tables=[_table(found), _compared(found, few)],
    )  # fmt: skip


def _table(found: Mapping[str, Judged]) -> Table:
    printed = published("deepg_mnist").tables["certified"]

    def row(name: str, one: Judged) -> Row:
        cells = [
            Cell(value=one["network"]["accuracy"], published=printed.at(name, "accuracy")),
            Cell(value=100 - one["lines"]["falsified"], published=printed.at(name, "attacked")),
            Cell(value=one["lines"]["certified"], published=printed.at(name, "DeepG")),
            Cell(value=one["lines"]["seconds"]),
        ]
        return Row(label=name, cells=cells)

    return Table(
        title="Certified by linear bounds of every pixel", first="transformation",
        columns=["accuracy (%)", "under attack (%)", "certified (%)", "CPU seconds a digit"],
        rows=[row(name, one) for name, one in found.items()],
        note="Accuracy under attack: ours counts what some tries answered wrongly; published is DeepG's attack.",
    )  # fmt: skip


def _compared(found: Mapping[str, Judged], few: int) -> Table:
    columns = [("few", "certified"), ("interval", "certified"), ("few", "seconds"), ("interval", "seconds")]
    return Table(
        title=f"The same {few} digits by lines and by intervals", first="transformation",
        columns=["lines: certified (%)", "intervals: certified (%)", "lines: CPU seconds a digit",
                 "intervals: CPU seconds a digit"],
        rows=[
            Row(label=name, cells=[Cell(value=one[of][what]) for of, what in columns]) for name, one in found.items()
        ],
        digits=2,
    )  # fmt: skip


def _claim(found: Mapping[str, Judged]) -> Claim:
    pairs = {name: (one["few"], one["interval"]) for name, one in found.items()}
    better = {
        name: lines["certified"] >= other["certified"] and lines["seconds"] < other["seconds"]
        for name, (lines, other) in pairs.items()
    }
    listed = "; ".join(
        f"{name} {one['few']['certified']:.0f} against {one['interval']['certified']:.0f} % in "
        f"{one['few']['seconds']:.2f} against {one['interval']['seconds']:.2f} s"
        for name, one in found.items()
    )
    return Claim(
        claim="Linear bounds in the parameters certify at least as many digits as intervals, in less time",
        verdict=common.verdict(better.values()), found=f"A digit, lines against intervals: {listed}.",
    )  # fmt: skip
