"""A hostile set audited, and what came of it compared with an oracle that knows every sample."""

import json
import re
import sys
from collections.abc import Generator
from contextlib import chdir, contextmanager
from pathlib import Path

from safetensors.numpy import load_file

from caveat.audits.assess import split
from tests.edges import hostile_folders, hostile_tables
from tests.edges.command import left, run
from tests.edges.hostile_sets import NETS, Hostile, Right

SHARE = 0.2
FEW = ("--score", "msp", "--calibration", "temperature", "--replicas", "2", "--calibration-share", str(SHARE))


def all_sets(seed: int = 0) -> list[Hostile]:
    """All of them; `seed` draws the places of the pictures."""
    folders, tables = hostile_folders, hostile_tables
    return [*folders.trees(), *folders.pictures(seed), *tables.npz(), *tables.parquet(), *tables.idx()]


def fault(case: Hostile, place: Path) -> str:
    """What is wrong with how an audit of the set, written to an empty folder, ended; empty if nothing is."""
    right = case.make(place)
    before = left(place)
    with importable(place):
        ended = run("audit", "--model", case.model, "--test", case.spec, *case.options, *FEW, "-o", "out")
    if ended.fault:
        return ended.fault
    if ended.code == 2:
        if left(place) != before or (place / "out").exists():
            return "a refusal that left something behind"
        return "" if right.refusal or not right.rows else f"refused: {ended.err}"
    if not right.rows:
        return "accepted"
    record = json.loads((place / "out" / "record.json").read_text(encoding="utf-8"))
    told = [*record["warnings"], *record["notes"]]
    missing = [words for words in right.said if not any(re.search(words, one) for one in told)]
    return f"not said: {missing[0]}" if missing else _wrong_figures(record, place, right)


def _wrong_figures(record: dict, place: Path, right: Right) -> str:
    kept = load_file(place / "out" / "observations" / "test.safetensors")
    found = list(zip(kept["labels"].tolist(), kept["logits"].argmax(1).tolist(), strict=True))
    if found not in right.rows:
        return f"read {len(found)} samples, but others than there are: {found}"
    said = any("could not be read" in one for one in [*record["warnings"], *record["notes"]])
    if len(right.rows) > 1 and said == (found == right.rows[0]):
        return "pictures were left out without a word, or a word said without cause"
    evaluated = [found[k] for k in split(len(found), SHARE, 0)[1].tolist()]
    expected = sum(label == shown for label, shown in evaluated) / len(evaluated)
    accuracy = record["calibrations"][0]["summary"]["accuracy"]["value"]
    return "" if abs(accuracy - expected) < 1e-6 else f"accuracy {accuracy}, right {expected}"


@contextmanager
def importable(place: Path) -> Generator[None]:
    """Within, `place` is the working directory and holds the networks `corner_nets:...`."""
    nets = place.parent / "nets"
    nets.mkdir(exist_ok=True)
    (nets / "corner_nets.py").write_text(NETS)
    sys.path.insert(0, str(nets))
    try:
        with chdir(place):
            yield
    finally:
        sys.path.remove(str(nets))
