"""Conditions of `--fail-if`, and the XML that build servers read."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from operator import gt, lt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caveat.errors import OptionError
from caveat.records.gate import METRICS, check, junit, parse, validate
from caveat.records.record import Check, Record

from ..report.conftest import make_record

RECORD = make_record(scores=3, sets=2, full=True)  # chosen: mahalanobis


def detection(score: str, ood: str):
    return next(d for d in RECORD.detections if (d.score, d.ood) == (score, ood))


PLAIN, TEMPERED = RECORD.calibrations[0].summary, RECORD.calibrations[1].summary
FIRST, CHOSEN = RECORD.operating
VALUES = {
    "accuracy": PLAIN.accuracy.value,
    "nll": PLAIN.nll.value,
    "brier": PLAIN.brier.value,
    "ece": PLAIN.ece.value,
    "ece[temperature]": TEMPERED.ece.value,
    "ece_classwise": PLAIN.ece_classwise,
    "ece_equal_mass[vector]": RECORD.calibrations[2].summary.ece_equal_mass,
    "mce": PLAIN.mce,
    "auroc[notmnist]": detection("mahalanobis", "notmnist").auroc.value,
    "auroc[notmnist,knn]": detection("knn", "notmnist").auroc.value,
    "auroc[ fashion-mnist , vim ]": detection("vim", "fashion-mnist").auroc.value,
    "aupr_in[notmnist]": detection("mahalanobis", "notmnist").aupr_in.value,
    "aupr_out[notmnist]": detection("mahalanobis", "notmnist").aupr_out.value,
    "fpr[fashion-mnist]": detection("mahalanobis", "fashion-mnist").fpr_at_95_tpr.value,
    "aurc": RECORD.selective[1].aurc.value,
    "aurc[knn]": RECORD.selective[0].aurc.value,
    "e_aurc[vim]": RECORD.selective[2].e_aurc,
    "coverage[aps]": 0.8613,
    "accepted[notmnist]": CHOSEN.accepted["notmnist"],
    "accepted[street]": 0.61,
    "accepted[notmnist,knn]": FIRST.accepted["notmnist"],
    "error": CHOSEN.error,
    "error[knn]": FIRST.error,
}


def test_the_table_above_knows_every_metric():
    assert {name.partition("[")[0] for name in VALUES} == set(METRICS)


@pytest.mark.parametrize(("metric", "value"), VALUES.items())
def test_a_condition_fails_on_the_side_it_names(metric, value):
    # Values of different metrics, sets and scores differ here, so a mixed-up one is seen.
    conditions = [f"{metric}{sign}{bound!r}" for sign in "<>" for bound in (value - 1e-4, value, value + 1e-4)]
    found = check(RECORD, conditions)
    assert [item.failed for item in found] == [False, False, True, True, False, False]
    assert {item.value for item in found} == {value}
    assert [item.condition for item in found] == conditions


def test_the_values_above_tell_the_metrics_apart():
    values = [value for name, value in VALUES.items() if name != "ece_equal_mass[vector]"]
    assert len(set(values)) == len(values)


def test_spaces_and_number_forms():
    found = check(RECORD, [" accuracy < .98 ", "accuracy<98e-2", "nll > 1e-9", "accuracy<98%", "accuracy < 98 %"])
    assert [item.failed for item in found] == [True] * 5
    assert check(RECORD, ["accuracy<97%"])[0].failed is False  # it is 97.33 %


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("auroc[notmnist]<85", r"auroc lies in \[0, 1\].*write 85% for a percentage"),
        ("ece>-0.1", r"ece lies in \[0, 1\]"),
        ("accuracy<101%", r"accuracy lies in \[0, 1\]"),
        ("ece>500", r"has the same answer for every model$"),
        ("brier>2.5", r"brier lies in \[0, 2\]"),
        ("nll<-1", r"nll lies in \[0, infinity\)"),
        ("nll>85%", "nll is no share"),
        ("brier>5%", "brier is no share"),
    ],
)
def test_a_threshold_out_of_range_is_refused(text, told):
    with pytest.raises(OptionError, match=told):
        parse([text])


def test_the_ends_of_a_range_are_in_it():
    limits = [item.threshold for item in parse(["ece>0", "ece>100%", "brier>2", "nll>1e6", "ece<7%", "ece<29%"])]
    assert limits == [0.0, 1.0, 2.0, 1e6, 0.07, 0.29]


def test_a_condition_is_understood_before_anything_is_measured():
    (item,) = parse([" auroc[ a,b>[c] , knn ] < 85 % "])
    assert (item.metric, item.inside, item.sign, item.threshold) == ("auroc", "a,b>[c] , knn", "<", 0.85)
    assert item.holds(0.8499)
    assert not item.holds(0.85)
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        parse(["ece>0.1", "acuracy<0.9"])


def test_names_are_checked_against_those_declared():
    good = ["ece>0.1", "ece[temperature]>0.1", "auroc[near]<85%", "auroc[near,knn]<0.5", "accepted[street]>0.1",
            "accepted[test,msp]<0.5", "coverage[aps]<0.8", "aurc[msp]>0.1", "error>0.1"]  # fmt: skip
    names = {"ood": ["near"], "scores": ["knn", "msp"], "calibrations": ["temperature"], "unlabelled": ["street"]}
    assert [item.text for item in validate(good, **names)] == good
    assert validate(parse(good), **names) == parse(good)
    for text, told in {
        "auroc[nera]<0.9": "there is no 'nera'; did you mean 'near'?",
        "auroc<0.9": "no name was given; expected one of near",
        "auroc[street]<0.9": "there is no 'street'",  # an unlabelled set has no AUROC
        "auroc[near,knm]<0.9": "did you mean 'knn'?",
        "accepted[sreet]>0.1": "did you mean 'street'?",
        "aurc[mps]>0.1": "did you mean 'msp'?",
        "ece[temprature]>0.1": "did you mean 'temperature'?",
    }.items():
        with pytest.raises(OptionError) as error:
            validate([text], **names)
        assert told in str(error.value)
    assert validate(["aurc[anything]>0.1", "ece[anything]>0.1"], ood=[])  # what is not known is not checked


@pytest.mark.parametrize(
    "text", ["", "ece", "ece>", "ece=0.1", "ece>=0.1", "ece>much", "ece>nan", "ece>inf", "0.1<ece<0.2", "ece[x>0.1",
             "ece x>0.1", ">0.1", "ece]>0.1", "ece>0.1 and nll>2"],
)  # fmt: skip
def test_a_malformed_condition_is_shown_how(text):
    with pytest.raises(OptionError, match=r"expected METRIC<NUMBER or METRIC>NUMBER") as error:
        check(RECORD, [text])
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acuracy<0.9", "condition: there is no 'acuracy'; did you mean 'accuracy'?"),
        ("zzz<0.9", "expected one of accepted, accuracy, aupr_in"),
        ("ece[temprature]>0.1", "there is no 'temprature'; did you mean 'temperature'?"),
        ("auroc[notmist]<0.9", "there is no 'notmist'; did you mean 'notmnist'?"),
        ("auroc[notmnist,knm]<0.9", "there is no 'knm'; did you mean 'knn'?"),
        ("auroc[qqq]<0.9", "there is no 'qqq'; expected one of notmnist, fashion-mnist"),
        ("auroc<0.9", "no name was given; expected one of notmnist"),
        ("fpr[mnist]<0.9", "did you mean 'notmnist'?"),  # the in-distribution set is not an OOD one
        ("aurc[mahalanobi]>0.1", "did you mean 'mahalanobis'?"),
        ("coverage[apps]<0.9", "did you mean 'aps'?"),
        ("coverage<0.9", "expected one of lac, aps"),
        ("accepted[streets]>0.1", "did you mean 'street'?"),
        ("accepted[street,vim]>0.1", "there is no 'vim'; expected one of mahalanobis, knn"),
        ("error[vim]>0.1", "there is no 'vim'"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(text, told):
    with pytest.raises(OptionError) as error:
        check(RECORD, [text])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_record_without_the_optional_parts():
    bare = make_record(scores=2, sets=1)
    assert check(bare, ["auroc[notmnist,knn]<0.5"])[0].failed is False
    for text, told in {
        "auroc[notmnist]<0.5": r"auroc\[notmnist\]: the record has no chosen score; name one, such as",
        "aurc>0.5": "no chosen score",
        "coverage[aps]<0.9": "there is no 'aps'; there are none",
        "accepted[notmnist]>0.1": "there are none",
        "error>0.1": "no chosen score",
    }.items():
        with pytest.raises(OptionError, match=told):
            check(bare, [text])


def test_the_only_guard_needs_no_name():
    one = RECORD.model_copy(update={"choice": None, "operating": [FIRST]})
    assert check(one, ["error>0.5"])[0].value == pytest.approx(FIRST.error)
    with pytest.raises(OptionError, match="no chosen score"):
        check(one.model_copy(update={"operating": [FIRST, CHOSEN]}), ["error>0.5"])


def test_names_of_sets_may_hold_commas_and_signs():
    def renamed(text: str) -> str:
        return text.replace("notmnist", "a,b>[c]")

    record = make_record(scores=2, sets=1, rename=renamed, full=True)
    found = {d.score: d.auroc.value for d in record.detections}
    checks = check(record, ["auroc[a,b>[c]]<0.2", "auroc[a,b>[c],knn]<0.2"])
    assert [item.value for item in checks] == [found["mahalanobis"], found["knn"]]


def test_junit_golden():
    checks = [
        Check(condition="ece>0.05", value=0.0183, failed=False),
        Check(condition='auroc["<&>"]<0.85', value=0.7123456, failed=True),
    ]
    text = junit(checks)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>')
    root = ET.fromstring(text)
    (suite,) = root
    assert suite.attrib == {"name": "caveat", "tests": "2", "failures": "1"}
    first, second = suite
    assert first.attrib == {"classname": "caveat.audit", "name": "ece>0.05"}
    assert [(part.tag, part.text) for part in first] == [("system-out", "the value is 0.0183")]
    assert second.get("name") == 'auroc["<&>"]<0.85'
    assert [(part.tag, part.get("message")) for part in second] == [
        ("failure", 'fails on auroc["<&>"]<0.85: the value is 0.712346')
    ]


@given(st.lists(st.builds(Check, condition=st.text(), value=st.floats(-9, 9), failed=st.booleans()), max_size=4))
def test_junit_is_always_xml(checks):
    (suite,) = ET.fromstring(junit(checks).encode())
    assert [case.find("failure") is not None for case in suite] == [item.failed for item in checks]
    for case, item in zip(suite, checks, strict=True):
        legal = [c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") for c in item.condition]
        kept = "".join(c if good else "\ufffd" for c, good in zip(item.condition, legal, strict=True))
        assert case.get("name") == kept


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from("<>"))
def test_the_sign_is_that_of_arithmetic(value, bound, sign):
    summary = PLAIN.model_copy(update={"mce": value})
    plain = RECORD.calibrations[0].model_copy(update={"summary": summary})
    record = RECORD.model_copy(update={"calibrations": [plain]})
    assert check(record, [f"mce{sign}{bound!r}"])[0].failed is (gt if sign == ">" else lt)(value, bound)


def test_checks_go_into_the_record():
    record = RECORD.model_copy(update={"checks": check(RECORD, ["coverage[aps]<0.88"])})
    again = Record.model_validate_json(record.model_dump_json())
    assert again.checks == [Check(condition="coverage[aps]<0.88", value=0.8613, failed=True)]


def test_the_gate_needs_no_torch():
    code = "import sys, caveat.records.gate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
