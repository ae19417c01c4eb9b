"""A script of `benchmarks/` as a module, for tests that run a smaller form of it."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["benchmark"]


@cache
def benchmark(name: str) -> ModuleType:
    """`benchmarks/<name>.py`, run once: what it defines, without what it does as a script."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    if str(path.parent) not in sys.path:  # where Python itself looks for what a script imports
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module
