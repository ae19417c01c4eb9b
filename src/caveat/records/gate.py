"""Conditions an audit must not meet, for a build that should stop: `ece>0.05`, `auroc[near]<85%`.

It imports no torch: what was measured is in the record. What can be wrong with a condition before anything is measured
(a typo, a number out of range) is told by `parse` and `validate`, so that it costs no audit.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from caveat.errors import OptionError, known_name
from caveat.records.record import Calibration, Check, Detection, Operating, Performance, Record, Selective

__all__ = ["METRICS", "Condition", "Metric", "check", "junit", "parse", "validate"]

GRAMMAR = re.compile(r"\s*([^\s\[\]<>]+)\s*(?:\[(.*)\])?\s*([<>])\s*([^\s<>%]+)\s*(%?)\s*", flags=re.DOTALL)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Signs that XML 1.0 cannot hold, not even escaped."""

Read = Callable[[Record, str, str], float]
"""(record, name of the metric, text in the brackets) to a value; the name is for errors."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a condition may be about."""

    summary: str
    inside: Literal["calibration", "ood,score", "score", "conformal", "set,score"]
    """What stands in the brackets."""
    read: Read
    highest: float = 1.0
    """The lowest value is 0."""
    share: bool = True
    """Whether a threshold may be written in percent."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition as it was understood."""

    text: str
    """As the user wrote it."""
    metric: str
    inside: str
    """What stood in the brackets."""
    sign: Literal["<", ">"]
    threshold: float

    def holds(self, value: float) -> bool:
        """Whether the value is on the side that the condition names."""
        return value > self.threshold if self.sign == ">" else value < self.threshold


def check(record: Record, conditions: Sequence[str]) -> list[Check]:
    """Whether the record meets any of the conditions on which it should fail.

    A condition is `METRIC<NUMBER` or `METRIC>NUMBER` and says when to fail. What a metric is about stands in brackets:
    a calibration (`ece[temperature]`; without brackets, the network as it is), an OOD set and a score
    (`auroc[near,knn]`; without a score, the chosen one), a score (`aurc[msp]`), a kind of conformal sets
    (`coverage[aps]`), or a set in front of the guard (`accepted[near]`). Values are compared, not their intervals.

    Parameters
    ----------
    record
        What an audit found.
    conditions
        Texts as a user writes them; shares are numbers in [0, 1] or percentages (`85%`). Spaces do not matter.

    Returns
    -------
    list[Check]
        One per condition, in order: the condition, the value it was about, and whether it failed.

    Raises
    ------
    OptionError
        As `parse`, or if a condition names a set, score, calibration or kind that the record does not have.
    """
    checks: list[Check] = []
    for item in parse(conditions):
        value = METRICS[item.metric].read(record, item.metric, item.inside)
        checks.append(Check(condition=item.text, value=value, failed=item.holds(value)))
    return checks


def parse(conditions: Sequence[str]) -> list[Condition]:
    """Read conditions; needs no record, so a typo is found before anything is measured.

    >>> [condition] = parse(["auroc[near] < 85%"])
    >>> condition.metric, condition.inside, condition.sign, condition.threshold
    ('auroc', 'near', '<', 0.85)

    Raises
    ------
    OptionError
        If a condition is malformed, names a metric that does not exist, or has a threshold that the metric cannot
        reach.
    """
    return [_parse(text) for text in conditions]


def validate(
    conditions: Sequence[str | Condition],
    *,
    ood: Collection[str],
    scores: Collection[str] | None = None,
    calibrations: Collection[str] | None = None,
    unlabelled: Collection[str] = (),
) -> list[Condition]:
    """Check conditions against the names that an audit will have, before it runs.

    Parameters
    ----------
    conditions
        Texts, or what `parse` made of them.
    ood
        Names of the OOD sets.
    scores
        Names of the scores; None where they are not known yet, and then not checked.
    calibrations
        Names of the calibrations, likewise; `none` (the network as it is) always exists.
    unlabelled
        Names of the unlabelled sets.

    Returns
    -------
    list[Condition]
        The conditions, in order.

    Raises
    ------
    OptionError
        As `parse`, or if a name is not among those given.
    """
    parsed = [_parse(item) if isinstance(item, str) else item for item in conditions]
    for item in parsed:
        match METRICS[item.metric].inside:
            case "ood,score":
                _, score = _set_and_score(f"{item.metric}[set,score]", item.inside, list(ood))
            case "set,score":
                _, score = _set_and_score(f"{item.metric}[set,score]", item.inside, ["test", *ood, *unlabelled])
            case "score":
                score = item.inside
            case "calibration":
                score = ""
                if calibrations is not None:
                    known_name(f"{item.metric}[calibration]", item.inside or "none", ["none", *calibrations])
            case "conformal":
                score = ""
        if score and scores is not None:
            known_name(f"{item.metric}[score]", score, scores)
    return parsed


def junit(checks: Sequence[Check]) -> str:
    """Write checks as JUnit's XML, which build servers read: one test case per condition.

    >>> print(junit([Check(condition="ece>0.05", value=0.0613, failed=True)]).split("?>")[1].strip())
    <testsuites><testsuite name="caveat" tests="1" failures="1"><testcase classname="caveat.audit"
    name="ece&gt;0.05"><failure message="fails on ece&gt;0.05: the value is 0.0613" ...
    """
    failures = sum(item.failed for item in checks)
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name="caveat", tests=str(len(checks)), failures=str(failures))
    for item in checks:
        condition = NOT_XML.sub("\N{REPLACEMENT CHARACTER}", item.condition)
        case = ET.SubElement(suite, "testcase", classname="caveat.audit", name=condition)
        if item.failed:
            ET.SubElement(case, "failure", message=f"fails on {condition}: the value is {item.value:.6g}")
        else:
            ET.SubElement(case, "system-out").text = f"the value is {item.value:.6g}"
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _parse(text: str) -> Condition:
    match = GRAMMAR.fullmatch(text)
    number = _number(match[4]) if match else None
    if match is None or number is None:
        raise OptionError(
            f"condition: expected METRIC<NUMBER or METRIC>NUMBER such as 'ece>0.05' or 'auroc[near]<85%', got {text!r}"
        )
    name = known_name("condition", match[1], METRICS)
    metric = METRICS[name]
    if match[5] and not metric.share:
        raise OptionError(f"condition: {name} is no share, so its threshold is a plain number without %, got {text!r}")
    # Divided as decimals are read: 85 % is 0.85, not 0.8500000000000001.
    threshold = float(f"{number / 100:.15g}") if match[5] else number
    if not 0 <= threshold <= metric.highest:
        limits = f"[0, {metric.highest:g}]" if math.isfinite(metric.highest) else "[0, infinity)"
        hint = f"; write {match[4]}% for a percentage" if metric.share and 1 < threshold <= 100 else ""
        raise OptionError(f"condition: {name} lies in {limits}, so {text!r} has the same answer for every model{hint}")
    return Condition(
        text=text,
        metric=name,
        inside=(match[2] or "").strip(),
        sign=">" if match[3] == ">" else "<",
        threshold=threshold,
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _summary(read: Callable[[Performance], float]) -> Read:
    def metric(record: Record, name: str, inside: str) -> float:
        return read(_calibration(record, name, inside).summary)

    return metric


def _calibration(record: Record, name: str, inside: str) -> Calibration:
    table = {item.name: item for item in record.calibrations}
    return table[known_name(f"{name}[calibration]", inside or "none", table)]


def _detection(read: Callable[[Detection], float]) -> Read:
    def metric(record: Record, name: str, inside: str) -> float:
        names = list(dict.fromkeys(item.ood for item in record.detections))
        ood, score = _set_and_score(f"{name}[set,score]", inside, names)
        score = score or _chosen(record, f"{name}[{ood}]", f"{name}[{ood},msp]")
        table = {item.score: item for item in record.detections if item.ood == ood}
        return read(table[known_name(f"{name}[{ood},score]", score, table)])

    return metric


def _selective(read: Callable[[Selective], float]) -> Read:
    def metric(record: Record, name: str, inside: str) -> float:
        table = {item.score: item for item in record.selective}
        score = inside or _chosen(record, name, f"{name}[msp]")
        return read(table[known_name(f"{name}[score]", score, table)])

    return metric


def _coverage(record: Record, name: str, inside: str) -> float:
    table = {item.name: item for item in record.conformal}
    return table[known_name(f"{name}[kind]", inside, table)].coverage.value


def _accepted(record: Record, name: str, inside: str) -> float:
    names = list(dict.fromkeys(key for item in record.operating for key in item.accepted))
    place, score = _set_and_score(f"{name}[set,score]", inside, names)
    shares = _operating(record, f"{name}[{place}]", score).accepted
    return shares[known_name(f"{name}[set]", place, shares)]


def _error(record: Record, name: str, inside: str) -> float:
    return _operating(record, name, inside).error


def _operating(record: Record, place: str, score: str) -> Operating:
    table = {item.score: item for item in reversed(record.operating)}
    if not score and len(table) == 1:
        return record.operating[0]
    return table[known_name(f"{place}: score", score or _chosen(record, place, "a score"), table)]


def _set_and_score(place: str, inside: str, names: Sequence[str]) -> tuple[str, str]:
    """The set, and the score after the last comma; a name of a set may hold commas of its own."""
    if inside in names or "," not in inside:
        return known_name(place, inside, names), ""
    ood, _, score = inside.rpartition(",")
    return known_name(place, ood.strip(), names), score.strip()


def _chosen(record: Record, place: str, example: str) -> str:
    if record.choice is None:
        raise OptionError(f"{place}: the record has no chosen score; name one, such as {example}")
    return record.choice.score


METRICS: dict[str, Metric] = {
    "accepted": Metric(summary="Share of a set that the guard accepts.", inside="set,score", read=_accepted),
    "accuracy": Metric(
        summary="Share of right answers on in-distribution data.",
        inside="calibration",
        read=_summary(lambda found: found.accuracy.value),
    ),
    "aupr_in": Metric(
        summary="Area under precision and recall, in-distribution inputs positive.",
        inside="ood,score",
        read=_detection(lambda found: found.aupr_in.value),
    ),
    "aupr_out": Metric(
        summary="Area under precision and recall, OOD inputs positive.",
        inside="ood,score",
        read=_detection(lambda found: found.aupr_out.value),
    ),
    "aurc": Metric(
        summary="Area under the risk-coverage curve.",
        inside="score",
        read=_selective(lambda found: found.aurc.value),
    ),
    "auroc": Metric(
        summary="AUROC of an OOD set against in-distribution data.",
        inside="ood,score",
        read=_detection(lambda found: found.auroc.value),
    ),
    "brier": Metric(
        summary="Brier score, in [0, 2].",
        inside="calibration",
        read=_summary(lambda found: found.brier.value),
        highest=2.0,
        share=False,
    ),
    "coverage": Metric(
        summary="Share of conformal sets that hold the right class.", inside="conformal", read=_coverage
    ),
    "e_aurc": Metric(
        summary="AURC above that of the ideal order.", inside="score", read=_selective(lambda found: found.e_aurc)
    ),
    "ece": Metric(
        summary="Expected calibration error.",
        inside="calibration",
        read=_summary(lambda found: found.ece.value),
    ),
    "ece_classwise": Metric(
        summary="Class-wise expected calibration error.",
        inside="calibration",
        read=_summary(lambda found: found.ece_classwise),
    ),
    "ece_equal_mass": Metric(
        summary="Expected calibration error over bins of equal mass.",
        inside="calibration",
        read=_summary(lambda found: found.ece_equal_mass),
    ),
    "error": Metric(summary="Share of wrong answers among those the guard accepts.", inside="score", read=_error),
    "fpr": Metric(
        summary="False positive rate at 95 % true positive rate.",
        inside="ood,score",
        read=_detection(lambda found: found.fpr_at_95_tpr.value),
    ),
    "mce": Metric(summary="Maximum calibration error.", inside="calibration", read=_summary(lambda found: found.mce)),
    "nll": Metric(
        summary="Negative log-likelihood, in nats.",
        inside="calibration",
        read=_summary(lambda found: found.nll.value),
        highest=math.inf,
        share=False,
    ),
}
"""What a condition may be about."""
