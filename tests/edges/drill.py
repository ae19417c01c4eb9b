"""Runs a command of Caveat again and again in forked processes, killed at each rename or unlink in turn.

Not a test itself: `test_drills.py` starts it once, in a process that has not used torch yet (forks of one that has can
hang). Reads JSON from standard input: the folder to begin from, the command, what to run afterwards. Writes, for every
point, what came of it.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from safetensors.numpy import load_file

from caveat.cli.main import main


def killed_at(point: int) -> None:
    """From now on the `point`-th rename or unlink of an existing file kills this process just before it is done."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            nonlocal done
            if os.path.exists(path):
                done += 1
                if done == point:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(path, *args, **options)

        return call

    for name in ("replace", "rename", "unlink"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))


def forked(command: list[str], folder: pathlib.Path, *, point: int = 0, wait: bool = True) -> int:
    """Exit code of the command in `folder`, -9 if it was killed; or the process, if it is not waited for."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) if wait else process
    code: object = 1
    try:
        os.chdir(folder)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        torch.set_num_threads(1)
        killed_at(point)
        sys.argv = ["caveat", *command]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 1)


def files(folder: pathlib.Path) -> dict[str, str]:
    """Hash of every file below."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sizes(folder: pathlib.Path, names: list[str]) -> dict[str, list[float]]:
    """Sum of absolute values of every tensor of these files: equal up to rounding where networks are."""
    found: dict[str, list[float]] = {}
    for name in names:
        if (folder / name).exists():
            found[name] = [float(abs(tensor).sum()) for _, tensor in sorted(load_file(folder / name).items())]
    return found


def drill(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each point: exit codes of what was run afterwards, and the files that were there before and after."""
    rows: list[dict[str, Any]] = []
    for point in [0, *range(1, job["most"] + 1)]:
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / "work"
            shutil.copytree(job["start"], folder)
            code = forked(job["command"], folder, point=point)
            if point and code != -signal.SIGKILL:
                return rows
            names = job.get("sizes", [])
            row: dict[str, Any] = {"point": point, "code": code, "left": files(folder), "after": []}
            row["sizes"] = sizes(folder, names)
            for command in job["after"]:
                again = {"code": forked(command, folder), "files": files(folder), "sizes": sizes(folder, names)}
                row["after"].append(again)
            rows.append(row)
    return rows


def prepare(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Commands one after the other in the folder itself, which the jobs that follow begin from."""
    folder = pathlib.Path(job["prepare"])
    if "copy" in job:
        shutil.copytree(job["copy"], folder)
    return [{"code": forked(command, folder)} for command in job["commands"]]


def preload(command: list[str]) -> None:
    """Import what a command imports: a fork has it then at no cost."""
    with tempfile.TemporaryDirectory() as place:
        seen = pathlib.Path(place) / "modules"
        process = os.fork()
        if not process:
            try:
                os.chdir(place)
                with open(os.devnull, "w") as nothing:
                    os.dup2(nothing.fileno(), 1)
                    os.dup2(nothing.fileno(), 2)
                sys.argv = ["caveat", *command]
                main()
            finally:
                seen.write_text("\n".join(sys.modules))
                os._exit(0)
        os.waitpid(process, 0)
        for name in seen.read_text().split("\n"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def race(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The commands at once, several times over."""
    rows: list[dict[str, Any]] = []
    for _ in range(job["times"]):
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / "work"
            shutil.copytree(job["start"], folder)
            processes = [forked(command, folder, wait=False) for command in job["commands"]]
            codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
            row: dict[str, Any] = {"codes": codes, "left": files(folder), "after": []}
            for command in job["after"]:
                row["after"].append({"code": forked(command, folder), "files": files(folder)})
            rows.append(row)
    return rows


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    for wanted in asked["preload"]:
        preload(wanted)
    kinds = {"prepare": prepare, "commands": race, "command": drill}
    print(json.dumps([next(run for key, run in kinds.items() if key in job)(job) for job in asked["jobs"]]))
