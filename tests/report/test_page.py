import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caveat.errors import CaveatError, DataError
from caveat.records.record import Record
from caveat.report import picks, render, write
from caveat.report.shown import shown

from .reading import EVIL, assert_alone, assert_inert, assert_policy, assert_words, numbers_of, of, read


@pytest.fixture(scope="module")
def page(record: Record) -> str:
    return render(record)


@pytest.fixture(scope="module")
def evil(build: Callable[..., Record]) -> str:
    return render(build(scores=2, sets=2, rename=lambda text: text + EVIL, full=True))


@pytest.fixture(scope="module")
def full_page(full: Record) -> str:
    return render(full)


def test_every_number_shown_is_in_the_record(record: Record, page: str, full: Record, full_page: str) -> None:
    for told, text_of_page in ((record, page), (full, full_page)):
        numbers, values = numbers_of(told), of(read(text_of_page), "data")
        assert len(values) > 500
        for attributes, text in values:
            value, kind = float(attributes["value"] or "nan"), attributes["data-as"]
            assert value in numbers, f"{value} is not in the record"
            assert text == shown(value, kind)  # pyright: ignore[reportArgumentType]  (a kind)


def test_no_number_hides_among_the_words(record: Record, page: str, full: Record, full_page: str) -> None:
    assert_words(page, record)
    assert_words(full_page, full)


def test_texts_of_the_record_are_inert(evil: str) -> None:
    reader = read(evil)
    assert {attributes.get("src", "")[:22] for attributes, _ in of(reader, "img")} == {"data:image/png;base64,"}
    assert_inert(evil)
    assert len(of(reader, "script")) == 4
    assert len(of(reader, "style")) == 1
    assert "49" not in "".join(reader.words).replace(" ", "")  # {{ 7*7 }} was not evaluated
    data = json.loads(of(reader, "script")[0][1])
    assert data["scores"] == ["knn" + EVIL, "mahalanobis" + EVIL]


def test_the_page_refers_to_nothing_outside(page: str, full_page: str, evil: str) -> None:
    for text in (page, full_page, evil):
        assert_alone(text)


def test_the_policy_allows_what_is_inlined_and_nothing_else(page: str, full_page: str) -> None:
    assert_policy(page)
    assert_policy(full_page)


def test_the_same_record_gives_the_same_bytes(record: Record, page: str, tmp_path: Path) -> None:
    record.save(tmp_path / "record.json")
    assert render(Record.load(tmp_path / "record.json")) == page


def test_the_page_stays_small(large: Record, page: str) -> None:
    assert len(render(large).encode()) < 3_000_000
    assert len(page.encode()) < 1_500_000


def test_heavy_pictures_are_left_out_and_counted(record: Record) -> None:
    heavy = [item.model_copy(update={"png": "AAAA" * 10_000}) for item in record.pictures]
    page = render(record.model_copy(update={"pictures": heavy}))
    reader = read(page)
    shown_pictures = len(of(reader, "img"))
    assert 0 < shown_pictures < len(heavy)
    assert [t for a, t in of(reader, "data") if a.get("data-derived") == "count"] == [str(len(heavy) - shown_pictures)]
    assert len(page.encode()) < 3_000_000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sets": 0}, "No OOD set was audited"),
        ({"pictures": False}, "The record has no pictures."),
        ({"scores": 0, "sets": 0, "pictures": False}, "The record has no sweep of thresholds."),
        ({"calibrated": False, "scores": 1}, "The score knn accepts "),
    ],
)
def test_poor_records_still_give_a_page(build: Callable[..., Record], options: dict[str, Any], told: str) -> None:
    reader = read(render(build(**({"scores": 2, "sets": 2} | options))))
    assert told in " ".join("".join(reader.words).split()) + " "


def test_a_record_without_calibrations_or_curves(build: Callable[..., Record]) -> None:
    bare = build(scores=2, sets=1).model_copy(
        update={"calibrations": [], "selective": [], "sweeps": [], "detections": []}
    )
    words = "".join(read(render(bare)).words)
    assert "no figures for in-distribution data" in words
    assert "no figures on misclassification" in words


def test_write_replaces_the_file_in_one_go(record: Record, page: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write(record, target)
    write(record, target)
    assert target.read_text(encoding="utf-8") == page
    assert [file.name for file in target.parent.iterdir()] == ["report.html"]


def test_write_names_a_place_it_cannot_use(record: Record, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaveatError, match="cannot write"):
        write(record, tmp_path / "file" / "report.html")


def test_a_picture_that_is_not_base64_is_refused(record: Record) -> None:
    broken = [record.pictures[0].model_copy(update={"png": '"><script>'})]
    with pytest.raises(DataError, match="expected base64 of a PNG for mnist"):
        render(record.model_copy(update={"pictures": broken}))


def test_the_report_needs_no_torch() -> None:
    code = "import sys, caveat.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_licence_of_the_charting_code_is_in_the_page(page: str) -> None:
    assert "University of Washington Interactive Data Lab" in of(read(page), "pre")[0][1]


def section(page: str, name: str) -> str:
    """The words of one section."""
    found = re.search(rf'<section id="{name}">(.*?)\n</section>', page, re.DOTALL)
    return " ".join("".join(read(f"<p>{found[1]}</p>").words).split()) if found else ""


def cells(page: str, name: str) -> list[float]:
    """The numbers of one section, in order."""
    found = re.search(rf'<section id="{name}">(.*?)\n</section>', page, re.DOTALL)
    return [float(a["value"] or "nan") for a, _ in of(read(f"<p>{found[1] if found else ''}</p>"), "data")]


def test_the_optional_parts_are_absent_from_a_record_without_them(page: str) -> None:
    for text in ('id="conformal"', "Unlabelled sets", "The score to use", 'class="card guard"', "This audit",
                 "in hindsight</", 'id="classes"', 'aria-label="Warnings"', ": as <code>temperature"):  # fmt: skip
        assert text not in page.split("<script")[0], text


def test_checks_come_first_and_say_what_failed(full: Record, full_page: str) -> None:
    words = section(full_page, "overview")
    assert words.startswith("Overview This audit fails passes ece>0.05 it is fails accuracy<0.98 it is ")
    assert cells(full_page, "overview")[:2] == [0.0183, 0.9733]
    passed = [item.model_copy(update={"failed": False}) for item in full.checks]
    assert "This audit passes passes ece>0.05" in section(
        render(full.model_copy(update={"checks": passed})), "overview"
    )


def test_conformal_sets_are_told_and_a_broken_promise_is_named(full: Record, full_page: str) -> None:
    words, numbers = section(full_page, "conformal"), cells(full_page, "conformal")
    lac, aps = full.conformal
    names = ["mnist", "notmnist", "fashion-mnist", "kmnist", "omniglot", "noise"]
    row = [x for item in (lac, aps) for x in (
        item.error, item.coverage.value, item.coverage.low, item.coverage.high, *(item.mean_size[n] for n in names)
    )]  # fmt: skip
    assert numbers[-len(row) :] == row
    assert words.count("less than promised") == 1
    assert words.index("lac") < words.index("aps") < words.index("less than promised")


def test_bars_of_set_sizes_and_of_the_guard_are_true(full: Record, full_page: str) -> None:
    reader = read(full_page)
    stacks = {a["aria-label"]: None for a, _ in of(reader, "svg") if a.get("class") == "stack" and "aria-label" in a}
    assert {
        "Sizes of the prediction sets of aps on kmnist",
        "Accepted of street with mahalanobis",
        "Accepted of mnist with knn",
    } <= set(stacks)
    # By hand from the record: the guard's bar of the in-distribution set ends where its answers end.
    guard = full.operating[1]
    assert guard.score == "mahalanobis"
    ends = {
        round(float(a["x"] or 0) + float(a["width"] or 0), 4)
        for a, _ in of(reader, "rect")
        if a.get("class") == "wrong" and "x" in a
    }
    assert round(guard.accepted["mnist"], 4) in ends


def test_the_guard_of_the_chosen_score_comes_first(full: Record, full_page: str) -> None:
    words, numbers = section(full_page, "threshold"), cells(full_page, "threshold")
    _, guard = full.operating
    assert numbers[:4] == [guard.threshold, guard.keep, guard.error, guard.error_of_all]
    assert numbers[4:11] == [guard.accepted[item.name] for item in full.sets if item.role != "train"]
    assert words.index("mahalanobis chosen calibration temperature threshold") < words.index("knn calibration")
    assert "street unlabelled" in words


def test_the_choice_is_told_with_its_figures(full: Record, full_page: str) -> None:
    words, numbers = section(full_page, "ood"), cells(full_page, "ood")
    assert full.choice
    assert full.choice.why in words
    assert "In hindsight knn is best on them" in words
    merits = sorted(full.choice.figures.values(), reverse=True)
    assert numbers[: len(merits)] == merits
    assert "mahalanobis features chosen" in words
    assert "knn features best in hindsight" in words


def test_unlabelled_sets_come_with_their_warning(full_page: str) -> None:
    words, numbers = section(full_page, "calibration"), cells(full_page, "calibration")
    assert "street no labels" in " ".join(words.split())
    assert "An estimate, not a measurement." in words
    assert numbers[-9:] == [0.9707, 0.9733, 0.9693, 0.9773, 0.9909, 1500, 0.884, 0.913, 640]


def test_generated_sets_are_those_the_record_calls_so(full: Record) -> None:
    sets = [item.model_copy(update={"generated": item.name == "kmnist"}) for item in full.sets]
    page = render(full.model_copy(update={"sets": sets}))
    heads = re.findall(r'class="sort">([\w-]+)</button><span class="tag">', page)
    assert heads == ["kmnist"]


def test_the_verdict_and_the_next_step_stand_at_the_top(full: Record, full_page: str) -> None:
    words = section(full_page.replace(str(full.checks), ""), "overview")
    verdict = words.index("Do not rely on this model for out-of-distribution (OOD) inputs: a guard with the score")
    assert verdict < words.index("Next: try the score knn") < words.index("Accuracy") < words.index("Rely on")
    assert words.index("Never predicted, although in the test set: owl.") < words.index("Rely on")
    worst = full.operating[1].accepted["kmnist"]
    assert cells(full_page, "overview")[2] == worst  # after the two checks
    assert full_page.index("OOD inputs accepted") < full_page.index(f'<dd><data value="{worst!r}"')


def test_classes_are_told_one_by_one_and_as_a_matrix(full: Record, full_page: str) -> None:
    numbers = cells(full_page, "classes")
    rows = [[item.count, item.accuracy, item.mean_confidence, item.auroc, item.accepted] for item in full.per_class]
    told = [x for row in rows for x in row if x is not None]
    assert numbers[: len(told)] == told
    assert full.confusion
    matrix = [count for row in full.confusion.matrix for count in row if count]
    assert numbers[len(told) :] == [*matrix, *(item.count for item in full.confusion.most[:8])]
    words = section(full_page, "classes")
    assert "Most frequent confusions: 9 predicted as 0 (), 8 predicted as 9 ()" in words
    # The shade is the share of the row: 80 of 80 + 9, and 9 of them.
    found = re.search(r'<table class="confusion">.*?</table>', full_page, re.DOTALL)
    assert found
    shades = re.findall(r'<td class="n ?(g\d+)?">', found[0])
    assert (shades[99], shades[90], shades[91]) == ("g9", "g1", "")


def test_calibrations_like_temperature_scaling_are_folded(full: Record) -> None:
    tempered = full.calibrations[1]
    twins = [tempered.model_copy(update={"name": name}) for name in ("matrix", "dirichlet")]
    page = render(full.model_copy(update={"calibrations": [*full.calibrations[:3], *twins]}))
    words = section(page, "calibration")
    assert "matrix and dirichlet give the same figures as temperature, to every digit shown." in words
    assert page.count('data-chart="reliability"') == 3
    table = re.search(r'aria-label="Accuracy and calibration">.*?</table>', page, re.DOTALL)
    assert table
    assert re.findall(r'<th scope="row"><code>(\w+)</code>', table[0]) == ["none", "temperature", "vector"]


def test_a_name_is_the_title(record: Record, page: str) -> None:
    named = render(record.model_copy(update={"name": "Digits <v2>"}))
    assert "<title>Caveat: Digits &lt;v2&gt;</title>" in named
    assert "<h1>Digits &lt;v2&gt;</h1>" in named
    assert "<code>runs/mnist-lenet</code>" in named
    assert "<h1><code>runs/mnist-lenet</code></h1>" in page


def test_ood_is_spelt_out_at_its_first_use(page: str, full_page: str) -> None:
    for text in (page, full_page):
        words = " ".join("".join(read(text).words).split())
        assert words.lower().index("out-of-distribution (ood)") + len("out-of-distribution (") == words.index("OOD")


PRIVATE = (
    "the known|of known|unknown|doubt|sure|unsure|says|said|kept|keeps|lets? through|answers?|answered|network says|"
    "many networks|right class|right answers?"
)


def test_private_words_are_gone(full: Record) -> None:
    assert full.choice
    choice = full.choice.model_copy(update={"why": "It is best."})
    page = render(full.model_copy(update={"choice": choice})).split('<script type="application/json"')[0]
    reader = read(page + "</body></html>")
    told = [a["data-tip"] or "" for a, _ in of(reader, "button") if "data-tip" in a]
    words = " ".join([*reader.words, *told])
    assert re.findall(rf"\b(?:{PRIVATE})\b", words, flags=re.IGNORECASE) == []


def test_the_record_is_read_once(full: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Record] = []
    real = picks.pick
    monkeypatch.setattr(picks, "pick", lambda record: (calls.append(record), real(record))[1])
    render(full)
    assert len(calls) == 1


def test_what_arrays_do_not_have_is_left_out(full: Record) -> None:
    assert "0 parameters" not in render(full.model_copy(update={"parameters": 0, "head": ""}))
    assert "parameters" in render(full)


def test_parameters_that_are_no_single_numbers_are_not_called_none(full: Record, full_page: str) -> None:
    fitted = [item for item in full.calibrations if item.name != "none" and not item.parameters]
    assert fitted
    assert full_page.count("a table or a matrix, not shown") == len(fitted)
    assert full_page.count("<td>none</td>") == 1


def test_long_names_of_classes_are_cut_with_the_whole_name_at_hand(full: Record) -> None:
    assert full.confusion is not None
    name = "great grey shrike, Lanius excubitor"
    page = render(full.model_copy(update={"classes": [name, *full.classes[1:]]}))
    assert f'<th scope="col" class="n" title="{name}"><span class="upright">{name}</span></th>' in page
    assert f'<th scope="row" title="{name}">' in page
    short = render(full.model_copy(update={"classes": [str(i) for i in range(len(full.classes))]}))
    assert '<span class="upright">' not in short
