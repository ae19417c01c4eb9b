"""How much the tests notice: random small faults are put into the numerical code, and its tests must fail.

`make mutants`: a fault is one comparison, sign, constant, boolean or extremum changed in one place. Texts, types and
errors are left alone: the fault must change a result. Its package's tests run on a copy of the sources, in a process
forked from one that has torch imported already. Survivors are printed; those that change nothing a test could see stand
in `EQUIVALENT`, with the reason. The last line is JSON.
"""

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scores", "calibration", "metrics", "posteriors", "attacks", "rays", "guard", "graph")
CONTRACTS = {
    "scores": "test_scores*", "calibration": "test_calibration*", "metrics": "test_metrics*",
    "posteriors": "test_posteriors*", "attacks": "test_attacks*",
}  # fmt: skip
EXTRA = {
    "graph": ["tests/test_graph.py", "tests/rays"],
    "guard": ["tests/edges/test_scores_edge.py"],
    "attacks": ["tests/audits/test_attacked.py"],
}
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {
    "argmax": "argmin", "argmin": "argmax", "amax": "amin", "amin": "amax", "max": "min", "min": "max", "sum": "mean",
    "mean": "sum", "abs": "neg", "sqrt": "square", "square": "abs", "exp": "expm1", "log": "log1p", "floor": "ceil",
    "ceil": "floor", "clamp_min": "clamp_max", "clamp_max": "clamp_min", "cumsum": "cumprod", "any": "all",
    "all": "any",
    "sigmoid": "tanh", "log_softmax": "softmax", "softmax": "log_softmax", "minimum": "maximum", "maximum": "minimum",
}  # fmt: skip
"""Methods and functions, and what stands in their place."""
EQUIVALENT: dict[str, str] = {}
"""`path:line: change` of mutants that no test could tell from the original, with the reason."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    line: int
    start: int
    end: int
    text: str
    change: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}: {self.change}"


class Finder(ast.NodeVisitor):
    """All places of a file at which a fault can be put."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text()
        self.path = str(path.relative_to(ROOT))
        self.lines = [0]
        for line in self.source.encode().splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.found: list[Mutant] = []
        self.visit(ast.parse(self.source))

    def at(self, node: ast.expr, *, end: bool = False) -> int:
        if end:
            return self.lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        return self.lines[node.lineno - 1] + node.col_offset

    def add(self, node: ast.expr, text: str, start: int | None = None, end: int | None = None) -> None:
        start = self.at(node) if start is None else start
        end = self.at(node, end=True) if end is None else end
        before = self.source.encode()[start:end].decode()
        self.found.append(Mutant(self.path, node.lineno, start, end, text, f"{before.strip()} -> {text.strip()}"))

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Change an operator that stands between two operands."""
        start, end = self.at(left, end=True), self.at(right)
        middle = self.source.encode()[start:end].decode()
        if middle.count(old) == 1 and "\n" not in middle:
            where = start + middle.index(old)
            self.add(left, new, where, where + len(old))

    def visit_Raise(self, node: ast.Raise) -> None: ...
    def visit_Assert(self, node: ast.Assert) -> None: ...
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...
    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...

    def visit_If(self, node: ast.If) -> None:
        """A condition whose body only raises, warns or returns an error is left alone, but for its comparison."""
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(default)
        for part in node.body:
            self.visit(part)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:  # not its decorators: whether a dataclass is frozen changes no result
            self.visit(part)

    def visit_For(self, node: ast.For) -> None:
        if not (isinstance(node.target, ast.Name) and node.target.id == "_"):  # how often a search refines itself
            self.visit(node.iter)
        for part in (*node.body, *node.orelse):
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in {"warn", "OptionError", "DataError", "ModelError", "cast", "TypeVar", "getLogger"}:
            return
        if name in NAMES:
            end = self.at(node.func, end=True)
            self.add(node.func, NAMES[name], end - len(name), end)
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in {"keepdim", "strict", "generator", "device", "dtype", "stacklevel", "inplace"}:
                self.visit(keyword.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if type(operator) in SWAPPED:
                old, new = (SIGNS[kind] for kind in (type(operator), SWAPPED[type(operator)]))
                self.between(left, right, old, new)
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        if type(node.op) in SWAPPED and not text:
            self.between(node.left, node.right, SIGNS[type(node.op)], SIGNS[SWAPPED[type(node.op)]])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.between(node.values[0], node.values[1], SIGNS[type(node.op)], SIGNS[SWAPPED[type(node.op)]])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub | ast.Invert | ast.Not):
            self.add(node, "", self.at(node), self.at(node.operand))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, str(not node.value))
        elif isinstance(node.value, int):
            self.add(node, str(node.value + 1))
        elif isinstance(node.value, float):
            self.add(node, repr(node.value * 1.5 if node.value else 0.5))


SIGNS: dict[type, str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Add: "+", ast.Sub: "-",
    ast.Mult: "*", ast.Div: "/", ast.And: "and", ast.Or: "or",
}  # fmt: skip


def mutants(count: int, seed: int) -> list[Mutant]:
    """A random choice over all files, each file as often as it has places."""
    found = [
        mutant
        for package in PACKAGES
        for path in sorted((ROOT / "src/caveat" / package).rglob("*.py"))
        for mutant in Finder(path).found
    ]
    chosen = random.Random(seed).sample(found, min(count, len(found)))
    return [mutant for mutant in chosen if mutant.name not in EQUIVALENT]


def tests_of(path: str) -> list[str]:
    """The tests of a file, its own first."""
    package = Path(path).parts[2]
    module = Path(path).stem.strip("_")
    folder = ROOT / "tests" / package
    own = sorted(folder.glob(f"test_{module}*.py")) if folder.is_dir() else []
    rest = sorted(folder.glob("test_*.py")) if folder.is_dir() else []
    contracts = sorted((ROOT / "tests/contracts").glob(CONTRACTS[package] + ".py")) if package in CONTRACTS else []
    files = [*own, *contracts, *rest, *(ROOT / extra for extra in EXTRA.get(package, []))]
    return [str(file) for file in dict.fromkeys(files) if "coverage" not in file.name]


def killed(mutant: Mutant, seconds: int) -> bool:
    """In a forked process: whether a test fails, or hangs."""
    import pytest

    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "src", Path(place) / "src")
        target = Path(place) / mutant.path
        data = target.read_bytes()
        target.write_bytes(data[: mutant.start] + mutant.text.encode() + data[mutant.end :])
        sys.path.insert(0, str(Path(place) / "src"))
        signal.alarm(seconds)  # a fault that makes an endless loop is noticed too
        code = pytest.main([
            "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests_of(mutant.path),
        ])  # fmt: skip
    return code != 0


def forked(mutant: Mutant, seconds: int) -> int:
    """Start one; the process."""
    process = os.fork()
    if process:
        return process
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    code = 3
    try:
        code = 1 if killed(mutant, seconds) else 0
    finally:
        os._exit(code)


def results(chosen: list[Mutant], processes: int, seconds: int, limit: float) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant, and whether it was noticed; those that were not begun when the time was up are left out."""
    waiting, running, started = list(chosen), dict[int, Mutant](), time.monotonic()
    while running or (waiting and time.monotonic() - started < limit):
        while waiting and len(running) < processes and time.monotonic() - started < limit:
            mutant = waiting.pop(0)
            running[forked(mutant, seconds)] = mutant
        process, status = os.wait()
        yield running.pop(process), status != 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=250)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    options.add_argument("--seconds", type=int, default=600, help="after which a mutant counts as killed")
    options.add_argument("--limit", type=float, default=float("inf"), help="seconds after which none is begun")
    options.add_argument("--output", type=Path, help="JSON of all mutants")
    options.add_argument("--smoke", action="store_true", help="two mutants: does the script run?")
    asked = options.parse_args()
    for name in ("torch", "numpy", "scipy", "sklearn", "pydantic", "pyarrow"):  # no plugin of pytest: it would warn
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    chosen = mutants(2 if asked.smoke else asked.count, asked.seed)
    packages = {Path(mutant.path).parts[2]: mutant for mutant in chosen}
    sound = [replace(m, text=(ROOT / m.path).read_bytes()[m.start : m.end].decode()) for m in packages.values()]
    failing = {
        Path(mutant.path).parts[2]
        for mutant, noticed in results(sound, asked.processes, asked.seconds, float("inf"))
        if noticed
    }
    if failing:
        print(f"left out: the tests of {', '.join(sorted(failing))} fail without any fault; mend them first")
    chosen = [mutant for mutant in chosen if Path(mutant.path).parts[2] not in failing]
    rows = []
    for mutant, noticed in results(chosen, asked.processes, asked.seconds, asked.limit):
        rows.append({"mutant": mutant.name, "killed": noticed})
        if not noticed:
            print(f"survived  {mutant.name}", flush=True)
    if asked.output:
        asked.output.write_text(json.dumps(rows, indent=1))
    count = sum(row["killed"] for row in rows)
    print(json.dumps({"mutants": len(rows), "killed": count, "share": round(count / max(1, len(rows)), 4)}))


if __name__ == "__main__":
    main()
