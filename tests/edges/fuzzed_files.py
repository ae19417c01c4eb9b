"""Every kind of file that Caveat reads, damaged: the command that reads it refuses, or gives the answer it gave before.

A file that carries a hash may never give another answer. One that carries none (a record, weights, a picture) may,
where its content is another: then an independent reader says whether it is.
"""

import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load as tensors_of
from safetensors.numpy import load_file

from tests.edges.command import left, run
from tests.edges.hostile_folders import folder
from tests.edges.hostile_sets import parquet_file
from tests.edges.hostile_tables import idx_files

MODEL = "caveat.models:mlp(classes=3, size=4, hidden=(8,))"
FEW = ["--score", "msp", "--calibration", "temperature", "--replicas", "2"]
AUDIT = ["audit", "--model", MODEL, "--test", "npz:known.npz", *FEW]
TRAIN = ["train", "--model", MODEL, "--data", "npz:known.npz", "--epochs", "2", "--batch", "64", "--no-audit"]
TRAINED = [*TRAIN, "--track", "swag", "-o", "trained"]
GUARD_RUN = ["guard", "run", "guard", "npz:few.npz", "--model", MODEL, "-o", "out.parquet"]
CORNERS = ["audit", "--model", "corner_nets:corners", *FEW, "-o", "out", "--test"]


@dataclass(frozen=True)
class Target:
    """A file, the command that reads it, and what the command answers."""

    file: str
    """A pattern that one file fits."""
    command: list[str]
    answer: Callable[[Path], Any]
    content: Callable[[bytes], Any] | None = None
    """What an independent reader makes of the file; None where a hash says that it is as it was."""


def _page(place: Path) -> bytes:
    return (place / "out.html").read_bytes()


def _verdicts(place: Path) -> Any:
    return pq.read_table(place / "out.parquet").to_pylist()


def _record(place: Path) -> Any:
    return json.loads((place / "out" / "record.json").read_text(), object_pairs_hook=_untimed)


def _untimed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key != "created" and "second" not in key}


def _guard(name: str) -> Callable[[Path], Any]:
    def answer(place: Path) -> Any:
        found = json.loads((place / name / "manifest.json").read_text())
        return {key: value for key, value in found.items() if key not in ("created", "digest")}

    return answer


def _weights(place: Path) -> Any:
    return {name: array.tolist() for name, array in load_file(place / "trained" / "model.safetensors").items()}


def _arrays(data: bytes) -> Any:
    return {name: (str(array.dtype), array.tobytes()) for name, array in tensors_of(data).items()}


def _bytes(data: bytes) -> Any:
    return data


TARGETS = [
    Target("audit/record.json", ["report", "audit", "-o", "out.html"], _page, json.loads),
    Target("audit/record.json", ["guard", "fit", "audit", "-o", "out", *FEW[:2]], _guard("out"), json.loads),
    Target("audit/record.json", ["compare", "audit", "other", "-o", "out.html"], _page, json.loads),
    Target("study/findings.json", ["report", "study", "-o", "out.html"], _page, json.loads),
    Target("guard/manifest.json", GUARD_RUN, _verdicts),
    Target("guard/guard-*.safetensors", GUARD_RUN, _verdicts),
    Target("guard/model-*.safetensors", GUARD_RUN, _verdicts),
    Target("guard/manifest.json", ["guard", "tune", "guard", "--keep", "0.7"], _guard("guard")),
    Target("guard/guard-*.safetensors", ["guard", "tune", "guard", "--keep", "0.7"], _guard("guard")),
    *(
        Target(f"audit/observations/{name}", ["guard", "fit", "audit", "-o", "out", "--score", "msp"], _guard("out"))
        for name in ("manifest.json", "test.safetensors", "model.safetensors")
    ),
    Target(
        "audit/observations/near.safetensors",
        ["guard", "fit", "audit", "-o", "out", "--score", "msp", "--against", "near"],
        _guard("out"),
    ),
    Target("trained/train.json", TRAINED, _weights, json.loads),
    Target("trained/checkpoint.safetensors", TRAINED, _weights),
    Target(
        "trained/model.safetensors", [*AUDIT, "--weights", "trained/model.safetensors", "-o", "out"], _record, _arrays
    ),
    Target("net.pt", [*AUDIT, "--weights", "net.pt", "-o", "out"], _record, _bytes),
    Target(
        "trained/swag.safetensors",
        [*AUDIT, "--posterior", "trained/swag.safetensors", "--draws", "2", "-o", "out"],
        _record,
    ),
    Target("outputs.npz", ["audit", "--logits", "outputs.npz", *FEW, "-o", "out"], _record, _bytes),
    Target("known.npz", [*AUDIT, "-o", "out"], _record, _bytes),
    Target("set.parquet", [*CORNERS, "parquet:set.parquet"], _record, _bytes),
    Target("set/bee/04.png", [*CORNERS, "folder:set"], _record, _bytes),
    Target(
        "fashion-mnist/*images*",
        [*CORNERS[:2], "corner_nets:corners(classes=10)", *CORNERS[3:], "fashion-mnist:test"],
        _record,
        _bytes,
    ),
    Target(
        "fashion-mnist/*labels*",
        [*CORNERS[:2], "corner_nets:corners(classes=10)", *CORNERS[3:], "fashion-mnist:test"],
        _record,
        _bytes,
    ),
]


def prepared(place: Path, findings: str) -> None:
    """Write one file of every kind below the working directory `place`."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = generator.normal(0.4, 0.12, (240, 4, 4))
    images.reshape(240, 16)[np.arange(240), labels] += 0.4
    images = images.clip(0, 1).astype(np.float32)
    np.savez("known.npz", images=images, labels=labels)
    np.savez("few.npz", images=images[:40])
    logits = generator.normal(0, 1, (240, 3))
    logits[np.arange(240), labels] += 2
    np.savez("outputs.npz", logits=logits, labels=labels)
    folder(place / "set")
    parquet_file(place / "set.parquet")
    idx_files(place, change=lambda x, y: (x, y))
    (place / "study").mkdir()
    (place / "study" / "findings.json").write_text(findings)
    for line in (
        [*TRAIN, "--track", "swag", "-o", "trained"],
        [*AUDIT, "--weights", "trained/model.safetensors", "--ood", "near=noise:uniform", "-o", "audit"],
        [*AUDIT, "-o", "other"],
        ["guard", "fit", "audit", "-o", "guard", "--score", "msp", "--keep", "0.8"],
    ):
        ended = run(*line)
        assert ended.code == 0, ended.err
    weights = load_file("trained/model.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, "net.pt")


# --- damage ---

Damage = Callable[[bytes, random.Random], bytes]


def _flipped(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 8))):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _early(data: bytes, draw: random.Random) -> bytes:
    """A byte of the header, where lengths stand."""
    changed = bytearray(data)
    changed[draw.randrange(min(64, len(data)))] = draw.randrange(256)
    return bytes(changed)


def _zeroed(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + bytes(min(512, len(data) - start)) + data[start + 512 :]


def _moved(data: bytes, draw: random.Random) -> bytes:
    a, b = sorted(draw.randrange(len(data)) for _ in range(2))
    return data[b:] + data[a:b] + data[:a]


STRANGE = [1e30, -1, 0, 2**70, None, "", "[bold]\x1b[2J", "\ud800", [], {}, True, [[[]]], 1e-320, "x" * 10_000]


def _other_value(data: bytes, draw: random.Random) -> bytes:
    """JSON in which one value is another, one is missing, or one is too many; other files have a byte changed."""
    try:
        whole = json.loads(data)
    except ValueError:
        return _flipped(data, draw)
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = draw.choice(list(keys))
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.2:
            break
        place = place[key]
    if draw.random() < 0.2:
        del place[key]
    elif draw.random() < 0.1 and isinstance(place, dict):
        place["more"] = 1
    else:
        place[key] = draw.choice(STRANGE)
    return json.dumps(whole).encode()


DAMAGES: dict[str, Damage] = {
    "flipped": _flipped,
    "flipped early": _early,
    "cut": lambda data, draw: data[: draw.randrange(len(data))],
    "cut by one": lambda data, _: data[:-1],
    "cut in front": lambda data, draw: data[draw.randrange(1, len(data)) :],
    "doubled": lambda data, _: data + data,
    "more behind": lambda data, draw: data + draw.randbytes(99),
    "zeroed": _zeroed,
    "moved": _moved,
    "other value": _other_value,
    "another value": _other_value,
    "a value more": _other_value,
    "empty": lambda data, _: b"",
    "a pickle": lambda data, _: pickle.dumps({"model": print}),
    "nested": lambda data, _: b"[" * 200_000,
    "nested objects": lambda data, _: b'{"a":' * 900 + b"1" + b"}" * 900,
    "random": lambda data, draw: draw.randbytes(len(data)),
    "spaces": lambda data, _: b" " * 5000,
    "NaN": lambda data, _: b"NaN",
    "null": lambda data, _: b"null",
    "a list": lambda data, _: b"[]",
    "an object": lambda data, _: b"{}",
}


@dataclass(frozen=True)
class Fuzz:
    """One target and what is done to its file: a damage with its seed, or another file of the folder in its place."""

    target: Target
    damage: str
    seed: int

    def __str__(self) -> str:
        return f"{' '.join(self.target.command[:2])}: {self.target.file}: {self.damage} {self.seed}"


def fuzzes(seed: int, count: int) -> Iterator[Fuzz]:
    """`count` of them: every damage to every target in turn, then again with other seeds."""
    ways = [(target, damage) for damage in (*DAMAGES, "swapped") for target in TARGETS]
    for number in range(count):
        target, damage = ways[number % len(ways)]
        yield Fuzz(target, damage, seed + number)


def answers(base: Path, work: Path) -> dict[int, Any]:
    """What each command answers where nothing is damaged, by the place of its target."""
    found: dict[int, Any] = {}
    for number, target in enumerate(TARGETS):
        code, answer, said = _answer(target, base, work / str(number), lambda path: None)
        assert code == 0, (target, said)
        found[number] = answer
    return found


def fault(fuzz: Fuzz, base: Path, work: Path, right: dict[int, Any]) -> str:
    """What is wrong with what came of it; empty if nothing is."""
    draw, target = random.Random(fuzz.seed), fuzz.target
    contents: list[bytes] = []

    def damage(path: Path) -> None:
        contents.append(path.read_bytes())
        if fuzz.damage == "swapped":
            others = [other for other in sorted(path.parent.parent.rglob(f"*{path.suffix}")) if other != path]
            contents.append(draw.choice(others or [path.parent.parent / "few.npz"]).read_bytes())
        else:
            contents.append(DAMAGES[fuzz.damage](contents[0], draw))
        path.write_bytes(contents[1])

    code, answer, said = _answer(target, base, work, damage)
    if code != 0:
        return said if code == 1 else ""
    same = answer == right[TARGETS.index(target)]
    if target.content is None:
        return "" if same else "another answer of a file that was altered"
    try:
        unchanged = target.content(contents[1]) == target.content(contents[0])
    except Exception:  # no reader of theirs can read it: whatever we read must be what was there
        unchanged = True
    return "another answer of the same content" if unchanged and not same else ""


def _answer(target: Target, base: Path, work: Path, damage: Callable[[Path], None]) -> tuple[int, Any, str]:
    """Exit code, answer, and what is wrong so far, of a command in a copy of the folder."""
    shutil.copytree(base, work)
    (path,) = work.glob(target.file)
    damage(path)
    before = left(work)
    with chdir(work):
        ended = run(*target.command)
    try:
        if ended.fault or (ended.code == 2 and left(work) != before):
            return 1, None, ended.fault or f"left behind: {set(left(work)) ^ set(before)}"
        return ended.code, target.answer(work) if ended.code == 0 else None, ended.err
    finally:
        shutil.rmtree(work)
