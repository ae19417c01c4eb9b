"""Runs commands of Caveat in forked processes whose disk is full, or turns read-only, at each write in turn.

Not a test itself: `test_full_disk.py` and `benchmarks/drills.py` start it, as `drill.py`. Reads JSON from standard
input: the folder to begin from, a folder for copies, and the commands. Writes what was wrong, by command and point.
"""

import errno
import json
import os
import pathlib
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from caveat.report import page
from tests.edges.command import Outcome, run
from tests.edges.drill import files, preload

RESUMED = "trained-anew/"
"""Folder of a training: what it wrote before the disk was full is gone on with. A record is of use without a page."""


def failing_at(point: int, code: int) -> list[int]:
    """From now on every write from the `point`-th on fails; the list counts the writes."""
    done = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done[0] += 1
            if point and done[0] >= point:
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        return call

    opened = pathlib.Path.open

    def open_or_fail(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        return (counted(opened) if set(mode) & set("wax+") else opened)(path, mode, *args, **options)

    pathlib.Path.open = open_or_fail  # pyright: ignore[reportAttributeAccessIssue]
    for home, names in ((pathlib.Path, ("replace", "mkdir")), (os, ("fsync",)), (tempfile, ("TemporaryFile",))):
        for name in names:
            setattr(home, name, counted(getattr(home, name)))
    return done


def forked(line: list[str], folder: pathlib.Path, prepare: Callable[[], list[int]]) -> tuple[Outcome, int]:
    """How the command ended in `folder`, in a process of its own, and how many writes it tried."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            torch.set_num_threads(1)
            os.chdir(folder)
            done = prepare()
            ended = run(*line)
            os.write(writing, json.dumps([ended.code, ended.out[-2000:], ended.err[-2000:], done[0]]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(process, 0)
    if not told:
        return Outcome(1, "", "the process died"), 0
    code, out, err, done = json.loads(told)
    return Outcome(code, out, err), done


def limited(size: int) -> list[int]:
    """No file may grow beyond `size` bytes: an error of the system itself, at the write that would pass it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return [0]


def wrong(ended: Outcome, before: dict[str, str], after: dict[str, str], whole: dict[str, str]) -> str:
    """What is wrong with a command that could not write: more than a line, a file gone or half-written."""
    if ended.fault:
        return ended.fault
    if any(name.endswith(".tmp") for name in after):
        return f"temporary files are left: {[name for name in after if name.endswith('.tmp')]}"
    if ended.code == 0:
        return "" if set(after) >= set(whole) else f"success without {sorted(set(whole) - set(after))}"
    if gone := sorted(set(before) - set(after)):
        return f"gone: {gone}"
    kept = (RESUMED, "out/") if "out/record.json" in after else RESUMED
    more = sorted(name for name in set(after) - set(before) if not name.startswith(kept))
    return f"left behind: {more}" if more else ""


def drill(job: dict[str, Any]) -> dict[str, str]:
    """By command and point, what was wrong, among all that was tried; empty texts where nothing was."""
    start, found = pathlib.Path(job["start"]), dict[str, str]()
    before = files(start)

    def tried(line: list[str], name: str, prepare: Callable[[], list[int]]) -> tuple[int, dict[str, str]]:
        with tempfile.TemporaryDirectory(dir=job["copies"]) as place:
            folder = pathlib.Path(place) / "work"
            shutil.copytree(start, folder)
            ended, done = forked(line, folder, prepare)
            after = files(folder)
            said = wrong(ended, before, after, whole)
            if ended.code == 2 and not said:
                again, _ = forked(line, folder, lambda: [0])
                said = f"run again where there is room: {again.err}" if again.code else ""
            found[f"{' '.join(line)}: {name}"] = said
            return done, after

    for line in job["commands"]:
        whole: dict[str, str] = {}
        count, whole = tried(line, "undisturbed", lambda: failing_at(0, 0))
        points = sorted({1 + round(k * (count - 1) / max(1, job["points"] - 1)) for k in range(job["points"])})
        for code, places in ((errno.ENOSPC, points), (errno.EROFS, points[::2])):
            for point in places:
                tried(line, f"{errno.errorcode[code]} at {point} of {count}", lambda p=point, c=code: failing_at(p, c))
        for size in job["sizes"]:
            tried(line, f"files of {size} bytes at most", lambda s=size: limited(s))
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    for wanted in asked["preload"]:
        preload(wanted)
    if not asked["pages"]:  # their charts take longer than all the rest
        page.payload = lambda found: {}
    print(json.dumps(drill(asked)))
