"""Conditions an audit must not meet, for a build that should stop: `ece>0.05`, `auroc[near]<0.85`.

It imports no torch: what was measured is in the record.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

from caveat.errors import OptionError, known_name
from caveat.records.record import Calibration, Check, Detection, Operating, Performance, Record, Selective

__all__ = ["METRICS", "check", "junit"]

GRAMMAR = re.compile(r"\s*([^\s\[\]<>]+)\s*(?:\[(.*)\])?\s*([<>])\s*([^\s<>]+)\s*", flags=re.DOTALL)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Signs that XML 1.0 cannot hold, not even escaped."""

Metric = Callable[[Record, str, str], float]
"""(record, name of the metric, text in the brackets) to a value; the name is for errors."""


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
        Texts as a user writes them; shares are numbers in [0, 1]. Spaces do not matter.

    Returns
    -------
    list[Check]
        One per condition, in order: the condition, the value it was about, and whether it failed.

    Raises
    ------
    OptionError
        If a condition is malformed, or names a metric, set, score, calibration or kind the record does not have.
    """
    return [_check(record, condition) for condition in conditions]


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


def _check(record: Record, condition: str) -> Check:
    match = GRAMMAR.fullmatch(condition)
    bound = _number(match[4]) if match else None
    if match is None or bound is None:
        raise OptionError(
            f"condition: expected METRIC<NUMBER or METRIC>NUMBER such as 'ece>0.05' or 'auroc[near]<0.85', "
            f"got {condition!r}"
        )
    name = known_name("condition", match[1], METRICS)
    value = METRICS[name](record, name, (match[2] or "").strip())
    return Check(condition=condition, value=value, failed=value > bound if match[3] == ">" else value < bound)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _summary(read: Callable[[Performance], float]) -> Metric:
    def metric(record: Record, name: str, inside: str) -> float:
        return read(_calibration(record, name, inside).summary)

    return metric


def _calibration(record: Record, name: str, inside: str) -> Calibration:
    table = {item.name: item for item in record.calibrations}
    return table[known_name(f"{name}[calibration]", inside or "none", table)]


def _detection(read: Callable[[Detection], float]) -> Metric:
    def metric(record: Record, name: str, inside: str) -> float:
        names = list(dict.fromkeys(item.ood for item in record.detections))
        ood, score = _set_and_score(f"{name}[set,score]", inside, names)
        score = score or _chosen(record, f"{name}[{ood}]", f"{name}[{ood},msp]")
        table = {item.score: item for item in record.detections if item.ood == ood}
        return read(table[known_name(f"{name}[{ood},score]", score, table)])

    return metric


def _selective(read: Callable[[Selective], float]) -> Metric:
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
    "accepted": _accepted,
    "accuracy": _summary(lambda found: found.accuracy.value),
    "aupr_in": _detection(lambda found: found.aupr_in.value),
    "aupr_out": _detection(lambda found: found.aupr_out.value),
    "aurc": _selective(lambda found: found.aurc.value),
    "auroc": _detection(lambda found: found.auroc.value),
    "brier": _summary(lambda found: found.brier.value),
    "coverage": _coverage,
    "e_aurc": _selective(lambda found: found.e_aurc),
    "ece": _summary(lambda found: found.ece.value),
    "ece_classwise": _summary(lambda found: found.ece_classwise),
    "ece_equal_mass": _summary(lambda found: found.ece_equal_mass),
    "error": _error,
    "fpr": _detection(lambda found: found.fpr_at_95_tpr.value),
    "mce": _summary(lambda found: found.mce),
    "nll": _summary(lambda found: found.nll.value),
}
"""What a condition may be about."""
