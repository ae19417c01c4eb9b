"""Shared by all tests: one hypothesis profile, few threads, generators by seed."""

import ast
from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from hypothesis import settings
from jaxtyping._import_hook import JaxtypingTransformer

_visit_module, _visit_function = JaxtypingTransformer.visit_Module, JaxtypingTransformer.visit_FunctionDef
SHAPES = ("jaxtyping", "caveat.types")


def _with_shapes(self: JaxtypingTransformer, node: ast.Module) -> ast.Module:
    shaped = any(isinstance(part, ast.ImportFrom) and part.module in SHAPES for part in node.body)
    return _visit_module(self, node) if shaped else node


def _outermost(self: JaxtypingTransformer, node: ast.FunctionDef) -> ast.FunctionDef:
    within = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
    return node if within else _visit_function(self, node)


# Before anything of caveat is imported: modules without a shape are left alone, and so are functions within functions,
# whose check would be compiled anew at each call of the outer one. Both together took two thirds of an audit's time.
JaxtypingTransformer.visit_Module, JaxtypingTransformer.visit_FunctionDef = _with_shapes, _outermost

torch.set_num_threads(1)  # the arrays are small; spinning threads only take turns with other work
settings.register_profile("caveat", derandomize=True, deadline=None, max_examples=12)
settings.load_profile("caveat")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20_26)


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """As in production, where no shape is checked at run time: for tests of our own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
