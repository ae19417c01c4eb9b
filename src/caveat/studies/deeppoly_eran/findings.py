"""What the study of DeepPoly shows: verified counts beside the published ones, and what no certificate may do."""

from collections.abc import Mapping
from typing import Any

from caveat.records.findings import Cell, Claim, Findings, Row, Scale, Table
from caveat.studies.kit import common
from caveat.studies.kit.published import Printed, published

__all__ = ["AGREE", "conclude"]

AGREE = (1.0, 1.05)
"""DeepPoly's counts over the published ones: other implementations of the same bounds verify up to 4 % more."""
Judged = Mapping[str, Any]


def conclude(scale: Scale, seed: int, digits: int, few: int, seconds: float, found: Mapping[str, Judged]) -> Findings:
    """Findings from every network's counts."""
    source, smoke = published("deeppoly_eran"), scale == "smoke"
    printed = source.tables["verified"]
    fewer = f"Branch and bound on {few} digits for {seconds:g} s each; published (PRIMA): all, minutes each."
    return common.findings(
        study="deeppoly-eran", title="DeepPoly on the networks of ERAN", source=source.source, scale=scale,
        seeds=[seed], settings={"digits": digits, "digits for branch and bound": few, "seconds a digit": seconds},
        reduced=[fewer], claims=[] if smoke else [_same(found, printed), _sound(found), _tighter(found)],
        notes=["Smoke: a toy, to see that everything works; the figures mean nothing."] if smoke else [],
        tables=[_counts(found, printed, digits), _few(found, few, seconds)],
    )  # fmt: skip


def _counts(found: Mapping[str, Judged], printed: Printed, digits: int) -> Table:
    def row(name: str, one: Judged) -> Row:
        cells = [
            Cell(value=one["right"], published=printed.at(name, "right")),
            Cell(value=one["stood"], published=printed.at(name, "upper")),
            Cell(value=one["verified"]["deeppoly"], published=printed.at(name, "DeepPoly")),
            Cell(value=one["verified"]["interval"]),
            Cell(value=one["milliseconds"]["deeppoly"]),
        ]
        return Row(label=name, cells=cells)

    return Table(
        title=f"Of the first {digits} test digits", first="network",
        columns=["right", "right under attack", "verified by DeepPoly", "by intervals", "CPU ms a digit, DeepPoly"],
        rows=[row(name, one) for name, one in found.items()], digits=0,
        note="Right under attack is an upper bound of what can be verified: ours by PGD, the published one by ERAN's.",
    )  # fmt: skip


def _few(found: Mapping[str, Judged], few: int, seconds: float) -> Table:
    columns = ["stood", "deeppoly", "alpha", "branch", "branch_falsified", "branch_open"]
    return Table(
        title=f"Of the first {few} test digits", first="network",
        columns=["right under attack", "verified by DeepPoly", "by optimised slopes",
                 f"by branch and bound, {seconds:g} s", "falsified or wrong", "open"],
        rows=[Row(label=name, cells=[Cell(value=one["few"][what]) for what in columns]) for name, one in found.items()],
        digits=0,
    )  # fmt: skip


def _same(found: Mapping[str, Judged], printed: Printed) -> Claim:
    counts = {name: (one["verified"]["deeppoly"], int(printed.at(name, "DeepPoly"))) for name, one in found.items()}
    least, most = AGREE
    return Claim(
        claim="DeepPoly verifies the published number of digits, or up to 5 % more",
        verdict=common.verdict([least * theirs <= ours <= most * theirs for ours, theirs in counts.values()]),
        found="; ".join(f"{name} {ours}, published {theirs}" for name, (ours, theirs) in counts.items()) + ".",
    )  # fmt: skip


def _sound(found: Mapping[str, Judged]) -> Claim:
    broken = sum(one["broken"] for one in found.values())
    return Claim(
        claim="No attack succeeds on a digit that any method verifies", verdict=common.verdict([broken == 0]),
        found=f"{broken} verified digits were broken by PGD.",
    )  # fmt: skip


def _tighter(found: Mapping[str, Judged]) -> Claim:
    lost = sum(one["lost"] for one in found.values())
    return Claim(
        claim="Optimised slopes verify every digit that DeepPoly verifies", verdict=common.verdict([lost == 0]),
        found="; ".join(f"{name} {one['few']['alpha']} where DeepPoly verifies {one['few']['deeppoly']}"
                        for name, one in found.items()) + ".",
    )  # fmt: skip
