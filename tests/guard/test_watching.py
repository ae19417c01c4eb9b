"""Verdicts on disk to a monitor that goes on where it stopped, refuses what has changed, and shows a page."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import DataError
from caveat.guard import Guard, artefact, watching
from caveat.guard.watching import watch
from caveat.report import monitor as page

CLASSES = 3


def inputs(count: int, seed: int, away: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    found = torch.randn(count, 4, generator=generator) * (0.7 if away else 1.0)
    found[torch.arange(count), labels] += 0.0 if away else 3.0
    return found, labels


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Guard, Path]:
    model = nn.Linear(4, CLASSES, bias=False)
    model.weight = nn.Parameter(torch.eye(CLASSES, 4), requires_grad=False)
    made = Guard.fit(model.eval(), inputs(800, 0), keep=0.95, score="msp")
    folder = tmp_path_factory.mktemp("guard") / "guard"
    made.save(folder)
    return made, folder


def write(made: Guard, path: Path, seed: int, count: int, away: float = 0.0, start: int = 0) -> list[int]:
    """Verdicts as `caveat guard run` writes them; the labels."""
    found, labels = inputs(count, seed, away)
    verdict = made(found)
    names = [made.decision.classes[label] for label in verdict.predicted.tolist()]
    table = pa.table(
        {
            "index": list(range(start, start + count)), "score": verdict.score.tolist(),
            "accepted": verdict.accepted.tolist(), "predicted_name": names,
            "true_name": pa.array([None] * count, pa.string()),
            "file": [f"<b>{seed}/{row}</b>.png" for row in range(count)],
        }
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return labels.tolist()


def test_it_goes_on_where_it_stopped_and_dates_the_change(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    verdicts, out = tmp_path / "verdicts", tmp_path / "out"
    out.mkdir()
    write(made, verdicts / "0.parquet", 1, 1200)
    first = watch(folder, verdicts, out)
    assert (first.fresh, first.state.alarms) == (1200, [])
    assert watch(folder, verdicts, out).fresh == 0
    write(made, verdicts / "1.parquet", 2, 600, away=1.0, start=1200)
    second = watch(folder, verdicts, out)
    assert second.fresh == 600
    alarm = second.state.alarms[0]
    assert alarm.watched == "scores"
    assert abs(alarm.since - 1200) < 50 < alarm.at - 1100 < 400
    assert all(item.index >= alarm.since for item in second.spoke)
    assert (scores := [item.score or 0.0 for item in second.spoke]) == sorted(scores, reverse=True)
    other = tmp_path / "whole"
    other.mkdir()
    assert watch(folder, verdicts, other).state == second.state  # as if it had not been stopped
    html = page.render(second)
    assert "<b>2/" not in html
    assert "&lt;b&gt;2/" in html
    assert f"Raised after {alarm.at} inputs" in html


def test_what_was_read_before_must_still_be_there(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    verdicts = tmp_path / "verdicts"
    write(made, verdicts / "0.parquet", 1, 300)
    watch(folder, verdicts, tmp_path)
    kept = (tmp_path / "monitor.json").read_text()
    for seed, count in ((7, 300), (1, 200)):  # others, and fewer
        write(made, verdicts / "0.parquet", seed, count)
        with pytest.raises(DataError, match="the first 300 are not those that were read before"):
            watch(folder, verdicts, tmp_path)
    assert (tmp_path / "monitor.json").read_text() == kept
    with pytest.raises(DataError, match="it is of another guard, threshold, level or seed"):
        watch(folder, verdicts, tmp_path, level=0.05)
    artefact_copy = tmp_path / "tuned"
    made.tuned(keep=0.8).save(artefact_copy)
    with pytest.raises(DataError, match="of another guard, or of another threshold"):
        watch(artefact_copy, verdicts, tmp_path / "new")
    with pytest.raises(DataError, match="watches another guard"):
        watch(artefact_copy, verdicts, tmp_path)
    damaged = json.loads(kept)
    damaged["state"]["level"] = "high"
    (tmp_path / "monitor.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="is no state of a monitor"):
        watch(folder, verdicts, tmp_path)
    pq.write_table(pa.table({"score": [1.0]}), verdicts / "0.parquet")
    with pytest.raises(DataError, match="no column 'index'"):
        watch(folder, verdicts, tmp_path / "new")
    assert artefact.manifest(folder).operating.threshold == made.decision.promise.threshold


def test_labels_may_trickle_in(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    verdicts, labels = tmp_path / "verdicts.parquet", tmp_path / "labels.csv"
    right = write(made, verdicts, 3, 500)
    names = made.decision.classes
    order = np.random.default_rng(0).permutation(500).tolist()
    rows = [f"{index},{names[right[index]]}" for index in order]
    labels.write_text("\n".join(["index,label", *rows[:100]]))
    assert watch(folder, verdicts, tmp_path, labels=labels).labelled == 100
    labels.write_text("\n".join(["index,label", *rows]))
    found = watch(folder, verdicts, tmp_path, labels=labels)
    accepted = int(made(inputs(500, 3)[0]).accepted.sum())
    assert (found.labelled, found.state.bets["errors"].seen) == (500, accepted)
    assert not found.state.alarms
    wrong = [f"{index},{names[(right[index] + 1) % CLASSES]}" for index in order]
    labels.write_text("\n".join(["index,label", *wrong]))
    with pytest.raises(DataError, match="labels: the first 500 are not those"):
        watch(folder, verdicts, tmp_path, labels=labels)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert [alarm.watched for alarm in watch(folder, verdicts, fresh, labels=labels).state.alarms] == ["errors"]
    position = "\n".join(["position,label", *rows])
    labels.write_text(position)
    other = tmp_path / "other"
    other.mkdir()
    assert watch(folder, verdicts, other, labels=labels).state.bets["errors"].seen == accepted
    for text, message in (
        ("index,label\n1,dog", "'dog', which is no class"),
        ("index,label\n1,0\n1,0", "labels input 1 again"),
        ("index,label\n999,0", "labels input 999, of which there is no verdict"),
        ("number,label\n1,0", r"expected the columns index \(or position\) and label"),
    ):
        labels.write_text(text)
        with pytest.raises(DataError, match=message):
            watch(folder, verdicts, tmp_path / "none", labels=labels)


def test_labels_of_several_runs_name_the_verdict_among_all(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    """Each run counts from 0: by index the labels of the first were taken for those of the last."""
    made, folder = guard
    runs, labels, names = tmp_path / "runs", tmp_path / "labels.csv", made.decision.classes
    first, second = write(made, runs / "1.parquet", 5, 200), write(made, runs / "2.parquet", 6, 200)
    labels.write_text("\n".join(["index,label", *(f"{row},{names[label]}" for row, label in enumerate(first))]))
    with pytest.raises(DataError, match=r"of several runs, .*the column index of .* is ambiguous; name it position"):
        watch(folder, runs, tmp_path, labels=labels)
    both = enumerate([*first, *second])
    labels.write_text("\n".join(["position,label", *(f"{row},{names[label]}" for row, label in both)]))
    found = watch(folder, runs, tmp_path, labels=labels)
    bet = found.state.bets["errors"]
    alone = [watch_errors(made, seed, right) for seed, right in ((5, first), (6, second))]
    assert (bet.seen, bet.hits) == tuple(map(sum, zip(*alone, strict=True)))


def watch_errors(made: Guard, seed: int, right: list[int]) -> tuple[int, int]:
    """How many inputs of a run are accepted, and how many of these are wrong."""
    verdict = made(inputs(200, seed)[0])
    wrong = verdict.predicted != torch.tensor(right)
    return int(verdict.accepted.sum()), int((wrong & verdict.accepted).sum())


def test_a_name_that_is_no_class_is_no_label(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    """A folder of a camera: every answer counted as wrong, and an alarm was raised."""
    made, folder = guard
    verdicts = tmp_path / "verdicts.parquet"
    write(made, verdicts, 3, 300)
    table = pq.read_table(verdicts)
    named = pa.array(["camera 7"] * 300, pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("true_name"), "true_name", named), verdicts)
    found = watch(folder, verdicts, tmp_path)
    assert (found.labelled, found.state.bets["errors"].seen, found.state.alarms) == (0, 0, [])
    assert "300 inputs have a label that is no class of the guard ('camera 7')" in found.sentences[-1]


def test_the_command_exits_with_1_at_an_alarm(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    verdicts = tmp_path / "verdicts.parquet"
    write(made, verdicts, 4, 300)
    command = ["guard", "monitor", str(folder), str(verdicts), "-o", str(tmp_path / "out")]
    calm = CliRunner().invoke(app, command, catch_exceptions=False)
    assert calm.exit_code == 0
    assert "300 verdicts, 300 of them new" in calm.stdout
    assert "No alarm for scores" in calm.stdout
    write(made, verdicts, 4, 400, away=1.0)
    alarmed = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "other")], catch_exceptions=False)
    assert alarmed.exit_code == 1
    assert "Alarm: the scores are higher" in alarmed.stdout
    assert (tmp_path / "other" / "report.html").stat().st_size > 100_000


def old(path: Path) -> None:
    """As written an hour ago: a younger file may be written to again without its time telling it."""
    then = path.stat().st_mtime_ns - 3_600_000_000_000
    os.utime(path, ns=(then, then))


def test_of_what_was_taken_nothing_is_read_again(guard: tuple[Guard, Path], tmp_path: Path, monkeypatch) -> None:
    made, folder = guard
    verdicts = tmp_path / "verdicts"
    for number in range(3):
        write(made, verdicts / f"{number}.parquet", number, 300, start=300 * number)
        old(verdicts / f"{number}.parquet")
    read: list[str] = []

    def batches(path: Path, *args: Any, **more: Any) -> Any:
        read.append(path.name)
        return kept(path, *args, **more)

    kept = watching.batches
    monkeypatch.setattr(watching, "batches", batches)
    watch(folder, verdicts, tmp_path)
    assert read == ["0.parquet", "1.parquet", "2.parquet"]
    read.clear()
    write(made, verdicts / "3.parquet", 7, 300, start=900)
    assert watch(folder, verdicts, tmp_path).fresh == 300
    assert read == ["3.parquet"]
    read.clear()
    os.utime(verdicts / "1.parquet")  # touched, and still the same
    assert watch(folder, verdicts, tmp_path).fresh == 0
    assert read == ["1.parquet", "3.parquet"]  # the last is young
    labels = tmp_path / "labels.csv"
    labels.write_text("index,label\n1150,0\n1,0\n")
    read.clear()
    for number in range(4):
        old(verdicts / f"{number}.parquet")
    watch(folder, verdicts, tmp_path)
    read.clear()
    assert watch(folder, verdicts, tmp_path, labels=labels).labelled == 2
    assert read == ["0.parquet", "3.parquet"]


def test_a_file_that_was_taken_may_not_change_grow_or_go(guard: tuple[Guard, Path], tmp_path: Path) -> None:
    made, folder = guard
    verdicts = tmp_path / "verdicts"
    for number in range(3):
        write(made, verdicts / f"{number}.parquet", number, 100)
    watch(folder, verdicts, tmp_path)
    state = (tmp_path / "monitor.json").read_text()
    for name, change in (
        ("1.parquet has changed", lambda: write(made, verdicts / "1.parquet", 9, 100)),
        ("1.parquet has changed", lambda: write(made, verdicts / "1.parquet", 1, 101)),
        ("2.parquet is no longer there", lambda: (verdicts / "2.parquet").unlink()),
        ("0a.parquet has changed", lambda: write(made, verdicts / "0a.parquet", 8, 100)),
    ):
        change()
        with pytest.raises(DataError, match=name) as caught:
            watch(folder, verdicts, tmp_path)
        assert "the first 300 are not those that were read before" in str(caught.value)
        assert (tmp_path / "monitor.json").read_text() == state
        for number in range(3):
            write(made, verdicts / f"{number}.parquet", number, 100)
    (verdicts / "0a.parquet").unlink()
    write(made, tmp_path / "more.parquet", 5, 60)
    grown = [pq.read_table(path) for path in (verdicts / "2.parquet", tmp_path / "more.parquet")]
    pq.write_table(pa.concat_tables(grown), verdicts / "2.parquet")  # the last may
    assert watch(folder, verdicts, tmp_path).fresh == 60


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 2**20), st.booleans(),
)  # fmt: skip
def test_stopped_or_not_it_raises_the_same_alarms(
    guard: tuple[Guard, Path], files: Any, seed: int, labelled: bool
) -> None:
    """Files of any number of verdicts, after some of which the monitor is asked, some of which grow afterwards."""
    made, folder = guard
    threshold, drawn = made.decision.promise.threshold, np.random.default_rng(seed)
    total = sum(count for count, _, _ in files)
    scores = threshold + drawn.normal(-0.1, 0.3, total) + np.linspace(0, drawn.choice([0, 1]), total)
    scores[drawn.random(total) < 0.05] = np.nan
    words = np.array([*made.decision.classes, "camera", None], dtype=object)
    true = words[drawn.integers(len(words), size=total)] if labelled else np.full(total, None)
    table = pa.table(
        {
            "index": np.arange(total), "score": scores, "accepted": scores <= threshold,
            "predicted_name": words[drawn.integers(3, size=total)].tolist(),
            "true_name": pa.array(true.tolist(), pa.string()),
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        verdicts, part, whole = (Path(place, name) for name in ("verdicts", "part", "whole"))
        for one in (verdicts, part, whole):
            one.mkdir()
        start, asked = 0, 0
        for number, (count, ask, grows) in enumerate(files):
            path = verdicts / f"verdicts-{number:05d}.parquet"
            if grows and count > 1:
                pq.write_table(table.slice(start, count // 2), path)
                asked += watch(folder, verdicts, part).fresh
            pq.write_table(table.slice(start, count), path)
            if ask:
                old(path)
                asked += watch(folder, verdicts, part).fresh
            start += count
        found, once = watch(folder, verdicts, part), watch(folder, verdicts, whole)
        assert asked + found.fresh == once.fresh == total
        assert found.state.alarms == once.state.alarms
        assert found.state.bets == once.state.bets
        assert found.state.counts == once.state.counts
        assert (found.spoke, found.labelled, found.sentences) == (once.spoke, once.labelled, once.sentences)
