"""How much the tests notice: random small faults are put into the numerical code, and its tests must fail.

`make mutants`: a fault is one comparison, sign, constant, boolean or extremum changed in one place. Texts, types and
errors are left alone: the fault must change a result. For each package one process collects the tests, notes once which
test calls which function, and is then forked for each fault: the changed function gets its new code there, and the
tests run until the first fails, those that call it first. What this cannot change (defaults, constants) is tried in a
copy of the sources. Survivors are printed; those that change nothing a test could
see stand in `EQUIVALENT`, with the reason. The last line is JSON.
"""

import argparse
import ast
import contextlib
import doctest
import gc
import hashlib
import importlib
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pytest

Task = TypeVar("Task")
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
EQUIVALENT: dict[str, str] = {
    "src/caveat/attacks/losses.py: return -functional.softplus(log_odds(logits, logits.argmax(1)), threshold=50): "
    "50 -> 51": "softplus(50) is 50 in double precision",
    "src/caveat/attacks/network.py: fits = True: True -> False": "only looks at the labels again",
    "src/caveat/calibration/_newton.py: step = _conjugate_gradients(curvature, -gradient, diagonal, "
    "tolerance=min(0.1, length) * length): 0.1 -> 0.15000000000000002": "another way to the same minimum",
    "src/caveat/calibration/_newton.py: slope, size, moved = float((gradient * step).sum()), 1.0, "
    "family.apply(rows, step): 1.0 -> 1.5": "another way to the same minimum",
    "src/caveat/guard/guard.py: no_weights = (torch.empty(0, 0), torch.empty(0))  # the score has its own copy where "
    "it needs them: 0 -> 1 (2)": "nothing reads them",
    "src/caveat/metrics/interval.py: return t if abs(bend) < 1e-9 else (math.copysign(abs(cube) ** (1 / 3), cube) - 1) "
    "/ bend: 1e-9 -> 1.5000000000000002e-09": "both sides agree there",
    "src/caveat/metrics/interval.py: while not holds(above) and above < 2**20:: < -> <=": "all are 0 or 1 there",
    "src/caveat/metrics/ranking.py: return (kept < enough).sum(-1, keepdim=True): < -> <=": "they are never equal",
    "src/caveat/posteriors/laplace.py: size = max(1, 4_000_000 // width): 4_000_000 -> 4000001": "size of the parts",
    "src/caveat/posteriors/swag.py: moved = moved + (self.scale / (rank - 1)) ** 0.5 * low: + -> -": "as likely",
    "src/caveat/rays/crossings.py: ceiling = torch.where(torch.isinf(end), math.inf, value + rise * (end - "
    "start).nan_to_num(posinf=0.0)): - -> +": "a looser bound rules out less",
    "src/caveat/rays/grid.py: smallest = torch.where(flat > 0, flat, math.inf).amin(1): > -> >=": "nothing moves there",
    "src/caveat/rays/pairs.py: p, q = _windows(slopes, op, 0.0), _windows(offsets, op, -math.inf): 0.0 -> 0.5": "what "
    "is outside never wins",
    "src/caveat/scores/gradients/plan.py: ruled = {name for name, own in held.items() if all(local in "
    "RULES.get(type(layer), ()) for _, layer, local in own)}: all -> any": "the true gradient does not agree either",
    "src/caveat/scores/gradients/plan.py: size = float(true.abs().max()): abs -> neg": "what does not agree is slower",
    'src/caveat/scores/gradients/probes.py: return 2**20 * torch.get_num_threads() if device.type == "cpu" else 2**28: '
    "* -> /": "size of the parts",
    'src/caveat/scores/meta/linear.py: 1.0: {"solver": "liblinear", "intercept_scaling": 30.0},: 30.0 -> 45.0': ""
    "either is next to no penalty",
    "src/caveat/scores/odin.py: return float(above.double().mean() / (2 * len(right))): * -> /": "the same order",
}
"""`path: source line: change` of mutants that no test could tell from the original, with the reason."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    line: int
    start: int
    end: int
    text: str
    change: str
    source: str
    function: tuple[int, int]
    """First and last line of the function around it, or of nothing."""

    @property
    def name(self) -> str:
        """It stays the same when other lines of the file change, so that a choice and a reason stay valid."""
        return f"{self.path}: {self.source}: {self.change}"


class Finder(ast.NodeVisitor):
    """All places of a file at which a fault can be put."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text()
        self.path = str(path.relative_to(ROOT))
        self.lines = [0]
        for line in self.source.encode().splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.found: list[Mutant] = []
        self.function = (0, -1)
        self.visit(ast.parse(self.source))

    def at(self, node: ast.expr, *, end: bool = False) -> int:
        if end:
            return self.lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        return self.lines[node.lineno - 1] + node.col_offset

    def add(self, node: ast.expr, text: str, start: int | None = None, end: int | None = None) -> None:
        start = self.at(node) if start is None else start
        end = self.at(node, end=True) if end is None else end
        before = self.source.encode()[start:end].decode()
        change = f"{before.strip()} -> {text.strip()}"
        line = self.source.splitlines()[node.lineno - 1].strip()
        mutant = Mutant(self.path, node.lineno, start, end, text, change, line, self.function)
        twins = sum(other.name.startswith(mutant.name) for other in self.found)
        self.found.append(replace(mutant, change=f"{change} ({twins + 1})") if twins else mutant)

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
        around = self.function
        if around == (0, -1):  # a function within a function is called where the outer one is
            self.function = (min(n.lineno for n in (node, *node.decorator_list)), node.end_lineno or node.lineno)
        for part in node.body:
            self.visit(part)
        self.function = around

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
            sign = "not " if isinstance(node.op, ast.Not) else "-"  # or ~, which is as long
            self.add(node, "", self.at(node), self.at(node) + len(sign))
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
    """A random choice over all files, each file as often as it has places; a changed line changes no other choice."""
    found = [
        mutant
        for package in PACKAGES
        for path in sorted((ROOT / "src/caveat" / package).rglob("*.py"))
        for mutant in Finder(path).found
    ]
    return sorted(found, key=lambda m: hashlib.sha256(f"{seed} {m.name}".encode()).digest())[:count]


def tests_of(path: str) -> list[str]:
    """The tests of a file, its own first."""
    package = Path(path).parts[2]
    module = Path(path).stem.strip("_")
    folder = ROOT / "tests" / package
    own = sorted(folder.glob(f"test_{module}*.py")) if folder.is_dir() else []
    rest = sorted(folder.glob("test_*.py")) if folder.is_dir() else []
    contracts = sorted((ROOT / "tests/contracts").glob(CONTRACTS[package] + ".py")) if package in CONTRACTS else []
    contracts.append(ROOT / "tests/contracts/test_defaults.py")
    files = [*own, *contracts, *rest, *(ROOT / extra for extra in EXTRA.get(package, []))]
    return [str(file) for file in dict.fromkeys(files) if "coverage" not in file.name]


@dataclass
class Watched:
    """Which test calls which functions of ours, given by file and first line, how long it takes, and which fail."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def far(self, test: str, mutant: Mutant) -> int:
        """0 for a test that calls the function, 1 for one that calls something else of its file, 2 for others.

        What stands outside of functions belongs to the whole file; a test that calls nothing looks at such numbers. Of
        a test that is newer than the record nothing is known: 0.
        """
        if test not in self.calls:
            return 0
        ours = self.calls[test]
        calls = [line for path, line in ours if path == mutant.path]
        first, last = mutant.function
        if last < 0:
            return 0 if calls or not ours else 2
        return 0 if any(first <= line <= last for line in calls) else 1 if calls else 2

    def chosen(self, mutant: Mutant, items: "list[pytest.Item]", distances: int) -> "list[pytest.Item]":
        """The tests to run, the nearest first, of these the fastest; none that fails without any fault."""
        near = [i for i in items if self.far(i.nodeid, mutant) < distances and i.nodeid not in self.failed]
        return sorted(near, key=lambda i: (self.far(i.nodeid, mutant), self.seconds.get(i.nodeid, 0)))


@dataclass
class Way:
    """How mutants are tried."""

    place: Path
    processes: int
    seconds: int
    limit: float
    distances: int
    calls: Path


@dataclass(eq=False)
class Package:
    """A plugin of pytest that takes the collected tests of a package and runs them once for every mutant."""

    mutants: list[Mutant]
    way: Way
    say: Callable[[str], None]
    name: str
    output: Path
    watched: Watched = field(default_factory=Watched)
    failed: bool = False

    def pytest_runtest_logreport(self, report: "pytest.TestReport") -> None:
        self.failed |= report.failed
        if report.failed:
            self.watched.failed.append(report.nodeid)
        self.watched.seconds[report.nodeid] = self.watched.seconds.get(report.nodeid, 0) + report.duration

    def pytest_runtestloop(self, session: "pytest.Session") -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"the tests of {self.name} cannot be collected")
        calls = self.way.calls / f"{self.name}.json"
        if not calls.exists():
            for _ in results({self.name: partial(self.watch, session.items, calls)}, 1, float("inf")):
                pass
        self.watched = Watched(*json.loads(calls.read_text()))
        self.say(f"{self.name}: {len(session.items)} tests in {sum(self.watched.seconds.values()):.0f} s")
        for test in self.watched.failed:
            self.say(f"left out: fails without any fault: {test}")
        tasks = {mutant: partial(self.patched, mutant, session.items) for mutant in self.mutants}
        rows = list[tuple[str, bool]]()
        for mutant, noticed in results(tasks, self.way.processes, self.way.limit):
            rows.append((mutant.name, noticed))
            if not noticed:
                self.say(f"survived  line {mutant.line} of {mutant.name}")
            elif len(rows) % 10 == 0:
                self.say(f"{self.name}: {len(rows)} of {len(tasks)}")
        self.output.write_text(json.dumps(rows))
        return True

    def watch(self, items: "list[pytest.Item]", output: Path) -> int:
        """In a forked process: all tests without a fault."""
        for item in items:
            seen = set[CodeType]()

            def trace(frame: FrameType, event: str, value: object, seen: set[CodeType] = seen) -> None:
                seen.add(frame.f_code)

            sys.settrace(trace)
            run([item])
            sys.settrace(None)
            names = ((code.co_filename.partition(f"{ROOT}/")[2], code.co_firstlineno) for code in seen)
            self.watched.calls[item.nodeid] = [(path, line) for path, line in names if path.startswith("src/")]
        output.write_text(json.dumps([self.watched.seconds, self.watched.calls, self.watched.failed]))
        return 0

    def patched(self, mutant: Mutant, items: "list[pytest.Item]") -> int:
        """In a forked process: 0 where no test fails, or hangs, when the functions at hand have the mutant's code."""
        signal.alarm(self.way.seconds)  # a fault that makes an endless loop is noticed too
        if not patch(mutant):
            return survives(mutant, self.watched, self.way)
        for item in self.watched.chosen(mutant, items, self.way.distances):
            run([item])
            if self.failed:
                return NOTICED
        return 0


def run(items: "list[pytest.Item]") -> None:
    for item in items:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def changed(mutant: Mutant) -> bytes:
    """The source text of its file."""
    data = (ROOT / mutant.path).read_bytes()
    return data[: mutant.start] + mutant.text.encode() + data[mutant.end :]


def patch(mutant: Mutant) -> int:
    """Give the function around the mutant its changed code, wherever it is held; to how many."""
    first, last = mutant.function
    codes = {code.co_qualname: code for code in outermost(compile(changed(mutant), mutant.path, "exec"))
             if first <= code.co_firstlineno <= last}  # fmt: skip
    count = 0
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == str(ROOT / mutant.path):
            code = codes.get(thing.__code__.co_qualname)
            if code and first <= thing.__code__.co_firstlineno <= last:
                thing.__code__ = code
                count += 1
    return count


def outermost(code: CodeType) -> Iterator[CodeType]:
    """Functions of a module and of its classes."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield part
            if not part.co_flags & inspect.CO_NEWLOCALS:  # a class
                yield from outermost(part)


@dataclass(eq=False)
class Only:
    """A plugin of pytest that leaves the tests to run for a mutant."""

    mutant: Mutant
    watched: Watched
    distances: int

    def pytest_collection_modifyitems(self, items: "list[pytest.Item]") -> None:
        items[:] = self.watched.chosen(self.mutant, items, self.distances)


NOTICED = 10
"""The exit status of a process in which a test failed; 1 is what Python gives for a fault of this script."""
ERRORS = os.fdopen(os.dup(2), "w")
QUIET = ("-q", "-s", "-p", "no:cacheprovider", "--no-header")


def survives(mutant: Mutant, watched: Watched, way: Way) -> int:
    """In a forked process that starts another: 0 where no test fails, or hangs, with a changed copy of the sources."""
    with tempfile.TemporaryDirectory(dir=way.place) as place:
        shutil.copytree(ROOT / "src", Path(place) / "src")
        (Path(place) / mutant.path).write_bytes(changed(mutant))
        tests = {test: test.split("::")[0] for test in watched.calls}
        near = {file for test, file in tests.items() if watched.far(test, mutant) < way.distances}
        near |= {str(Path(file).relative_to(ROOT)) for file in tests_of(mutant.path)} - {*tests.values()}
        task = Path(place) / "task.pickle"
        task.write_bytes(pickle.dumps((mutant, watched, way, sorted(near))))
        command = [sys.executable, __file__, "--fresh", str(task)]
        try:
            return subprocess.run(command, timeout=way.seconds, capture_output=True, check=False).returncode
        except subprocess.TimeoutExpired:
            return NOTICED


def fresh(task: Path) -> int:
    """In a process of its own: the tests of `survives`."""
    import pytest

    mutant, watched, way, near = pickle.loads(task.read_bytes())
    sys.path.insert(0, str(task.parent / "src"))
    files = [file for file in tests_of(mutant.path) if str(Path(file).relative_to(ROOT)) in near]
    if files and pytest.main(["-x", *QUIET, *files], plugins=[Only(mutant, watched, way.distances)]) not in {0, 5}:
        return NOTICED
    name = ".".join(Path(mutant.path).with_suffix("").parts[1:]).removesuffix(".__init__")
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return NOTICED if doctest.testmod(importlib.import_module(name), optionflags=options).failed else 0


def forked(task: Callable[[], int]) -> int:
    """Start one; the process."""
    process = os.fork()
    if process:
        return process
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    code = 3
    try:
        code = task()
    except BaseException:
        traceback.print_exc(file=ERRORS)
        ERRORS.flush()
    finally:
        os._exit(code)


def results(tasks: dict[Task, Callable[[], int]], processes: int, limit: float) -> Iterator[tuple[Task, bool]]:
    """Each task, and whether a test noticed it; what was not begun when the time was up is left out.

    Raises
    ------
    RuntimeError
        If a task ended in another way than with 0, with `NOTICED` or by a signal: that is a fault of this script.
    """
    waiting, running = list(tasks), dict[int, Task]()
    while running or (waiting and time.monotonic() < limit):
        while waiting and len(running) < processes and time.monotonic() < limit:
            task = waiting.pop(0)
            running[forked(tasks[task])] = task
        process, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        if code > 0 and code != NOTICED:
            raise RuntimeError(f"{running[process]}: ended with {code}")
        yield running.pop(process), code != 0


def of_package(name: str, chosen: list[Mutant], way: Way, say: Callable[[str], None]) -> int:
    """In a forked process: all mutants of a package."""
    import pytest

    sys.path.insert(0, str(ROOT / "src"))
    plugin = Package(chosen, way, say, name, way.place / name)
    return int(pytest.main([*QUIET, *tests_of(chosen[0].path)], plugins=[plugin]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=250)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    options.add_argument("--seconds", type=int, default=600, help="after which a mutant counts as killed")
    options.add_argument("--limit", type=float, default=float("inf"), help="seconds after which none is begun")
    options.add_argument("--output", type=Path, help="JSON of all mutants")
    options.add_argument("--calls", type=Path, help="folder that keeps which test calls what, for another run")
    options.add_argument("--only", default="", help="only mutants whose name holds this text")
    options.add_argument(
        "--closest",
        action="store_true",
        help="only tests that call the function: faster, and a few survive that should not",
    )
    options.add_argument("--smoke", action="store_true", help="two mutants: does the script run?")
    options.add_argument("--fresh", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    if asked.fresh:
        sys.exit(fresh(asked.fresh))
    for name in ("torch", "numpy", "scipy", "sklearn", "pydantic", "pyarrow"):  # no plugin of pytest: it would warn
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    asked_for = mutants(2 if asked.smoke else asked.count, asked.seed)
    packages: dict[str, list[Mutant]] = {}
    for mutant in asked_for:
        if asked.only in mutant.name and mutant.name not in EQUIVALENT:
            packages.setdefault(Path(mutant.path).parts[2], []).append(mutant)
    out = os.fdopen(os.dup(1), "w")

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    rows = []
    with tempfile.TemporaryDirectory() as place:
        calls = asked.calls or Path(place) / "calls"
        calls.mkdir(parents=True, exist_ok=True)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = place
        way = Way(
            Path(place),
            asked.processes,
            asked.seconds,
            time.monotonic() + asked.limit,
            1 if asked.closest else 3,
            calls,
        )
        tasks = {name: partial(of_package, name, chosen, way, say) for name, chosen in packages.items()}
        for name, _ in results(tasks, 1, float("inf")):
            found = json.loads((way.place / name).read_text())
            rows += [{"mutant": mutant, "killed": killed} for mutant, killed in found]
    if asked.output:
        asked.output.write_text(json.dumps(rows, indent=1))
    count = sum(row["killed"] for row in rows)
    equivalent = sum(mutant.name in EQUIVALENT for mutant in asked_for)
    figures = {"mutants": len(rows), "killed": count, "share": round(count / max(1, len(rows)), 4)}
    print(json.dumps(figures | {"equivalent": equivalent}))


if __name__ == "__main__":
    main()
