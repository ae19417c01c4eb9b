"""All benchmarks one after another, and one table of their figures: `make bench`.

    python benchmarks/table.py [NAME ...]     all scripts that `targets.toml` names, or some; the others keep their rows

Each script's last line is JSON; `targets.toml` says which figures of it stand in the table and what each should be at
most or at least. Figures, machine, date and load go to `recorded.json` and, as a page, to docs/benchmarks.md. A figure
that is a fifth worse than the last recorded one is named at the end, and so is a target that is missed. Ratios are
taken within one run of one script, so that another machine gives about the same; what else runs on it makes them worse.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDED, PAGE = HERE / "recorded.json", HERE.parent / "docs" / "benchmarks.md"
WORSE = 1.2
"""By how much a figure may be worse than the last one before it is named: medians of a shared machine vary by that."""
BEFORE = """# Benchmarks

Written by `make bench` from the last lines of the scripts in `benchmarks/`; each row names its script. Ratios compare
two things that took turns in the same run, so that the machine matters little; *over* means divided by. Peers are those
that install beside PyTorch without replacing it (`make references`).

"""


def machine() -> str:
    """Processor, cores, Python and PyTorch."""
    import torch

    named = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), named)
    return f"{named}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch {torch.__version__}"


def load() -> float:
    """How many cores other programs keep busy: over two seconds, as the average of a minute holds the script before."""
    if not Path("/proc/stat").exists():
        return os.getloadavg()[0]

    def busy() -> float:
        user, nice, system, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")

    before, begun = busy(), time.perf_counter()
    time.sleep(2)
    return (busy() - before) / (time.perf_counter() - begun)


def run(name: str) -> dict[str, Any]:
    """What the script's last line says, with the load of the machine before and the seconds it took; or its error."""
    others, begun = load(), datetime.now(UTC)
    made = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")], capture_output=True, text=True, check=False, cwd=HERE.parent
    )
    told: dict[str, Any] = {
        "date": f"{begun:%Y-%m-%d}", "machine": machine(), "load": round(others, 2),
        "seconds": round((datetime.now(UTC) - begun).total_seconds()),
    }  # fmt: skip
    last = (made.stdout.strip().splitlines() or [""])[-1]
    try:
        return told | {"figures": json.loads(last)}
    except ValueError:
        reason = (made.stderr.strip().splitlines() or [last])[-1]
        return told | {"error": reason or f"exit {made.returncode}"}


def at(figures: Any, key: str) -> float | None:
    """The number under a key like `scores_over_forward.lenet`; None where there is none."""
    for part in key.split("."):
        if not isinstance(figures, dict) or part not in figures:
            return None
        figures = figures[part]
    return figures if isinstance(figures, int | float) else None


def kept(value: float, row: dict[str, Any]) -> bool:
    """Whether a figure keeps its target; without one it does."""
    return row.get("least", value) <= value <= row.get("most", value)


def worse(value: float, before: float, row: dict[str, Any]) -> bool:
    """Whether a figure that has a direction is clearly worse than the last recorded one."""
    slack = (WORSE - 1) * abs(before)  # a difference may be below zero
    return ("most" in row and value > before + slack) or ("least" in row and value < before / WORSE)


def lines(targets: dict[str, dict[str, Any]], recorded: dict[str, Any]) -> list[str]:
    """The page's table."""
    made = ["| what | figure | target | script | measured |", "|---|---|---|---|---|"]
    for name, rows in targets.items():
        found = recorded.get(name, {})
        when = f"{found['date']}, load {found['load']}" if found else "not yet"
        for key, row in rows.items():
            value = at(found.get("figures"), key)
            sign, bound = next(((s, row[k]) for k, s in (("most", "≤"), ("least", "≥")) if k in row), ("", ""))
            shown = found.get("error", "not measured in that run" if found else "") if value is None else f"{value:g}"
            missed = value is not None and not kept(value, row)
            figure = f"**{shown}** (missed)" if missed else shown
            made.append(f"| {row['text']} | {figure} | {sign} {bound} | `{name}.py` | {when} |")
    return made


def page(targets: dict[str, dict[str, Any]], recorded: dict[str, Any]) -> str:
    """docs/benchmarks.md."""
    machines = sorted({found["machine"] for found in recorded.values()})
    reasons = [f"- {row['text']}: {row['why']}" for rows in targets.values() for row in rows.values() if "why" in row]
    return "\n".join([
        BEFORE + "\n".join(lines(targets, recorded)), "",
        *(["What a missed target is due to:", "", *reasons, ""] if reasons else []),
        "Machine: " + "; ".join(machines) + ". *Load* is how many cores other programs kept busy before the script",
        "began: above 0.5 they took part of its time.", "",
    ])  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    targets = tomllib.loads((HERE / "targets.toml").read_text())
    options.add_argument("names", nargs="*", metavar="NAME", help="; ".join(targets))
    options.add_argument("--page", action="store_true", help="run nothing: write the page from what is recorded")
    given = options.parse_args()
    unknown = [name for name in given.names if name not in targets]
    if unknown:
        options.error(f"NAME: expected some of {', '.join(targets)}, got {', '.join(unknown)}")
    recorded: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    notes: list[str] = []
    for name in [] if given.page else given.names or list(targets):
        print(f"{name}.py", end="", flush=True)
        found = run(name)
        print(f": {found['seconds']} s{' ' + found['error'] if 'error' in found else ''}")
        for key, row in targets[name].items():
            value, before = at(found.get("figures"), key), at(recorded.get(name, {}).get("figures"), key)
            if value is None:
                notes.append(f"{name}.py gave no {key}")
            elif not kept(value, row):
                notes.append(f"{key} of {name}.py is {value:g}, its target {row.get('most', row.get('least'))}")
            if value is not None and before is not None and worse(value, before, row):
                notes.append(f"{key} of {name}.py was {before:g} and is {value:g}")
        recorded[name] = found
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(targets, recorded))
    print(*notes, f"Written: {PAGE.relative_to(HERE.parent)}", sep="\n")


if __name__ == "__main__":
    main()
