"""The command run in this process, as a person sees it: exit code, and what was printed."""

import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from caveat.cli.main import main

PROGRESS = re.compile(r" *\d+\.\d s  ")
"""Lines of a command that says what it is doing."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """What is wrong with how a command ended, whatever it was asked: empty if it succeeded or refused in a line."""
        if self.code == 0:
            return f"an error beside success: {self.err}" if "error" in self.err else ""
        if self.code != 2:
            return f"exit code {self.code}: {self.err[-400:]}"
        told = [line for line in self.err.splitlines() if not PROGRESS.match(line)]
        if len(told) != 1 or not told[0].startswith("caveat: error: ") or "\x1b" in self.err:
            return f"not one line: {self.err!r}"
        return f"an exception that is none of ours: {self.err}" if "CAVEAT_TRACEBACK" in self.err else ""


def run(*line: str) -> Outcome:
    """`caveat` with these arguments, in the working directory."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["caveat", *line]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code: object = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
    return Outcome(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


def left(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder: its size, and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and not path.is_dir()
    }
