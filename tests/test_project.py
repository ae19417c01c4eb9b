"""The project's own habits, kept without a reviewer."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from caveat import errors
from caveat.observations import Observations
from caveat.scores import logits

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "caveat").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_idea_one_file_and_its_size(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500, "one idea, one file, at most 500 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert not node.args.kwarg, f"{node.name} takes **{node.args.kwarg}: the signature is the configuration"
    # a generator of one's own may be seeded; the global state may not
    assert not re.search(r"torch\.manual_seed|random\.seed|\.cuda\(", text)
    assert not re.search(r"except:|import pickle|allow_pickle=True|weights_only=False", text)


def test_no_class_of_ours_has_a_concrete_base_of_ours():
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    classes = {n.name: n for t in trees for n in ast.walk(t) if isinstance(n, ast.ClassDef)}

    def protocol_or_exception(node: ast.ClassDef) -> bool:
        bases = {getattr(b, "id", getattr(b, "attr", "")) for b in node.bases}
        if bases & {"Protocol", "BaseModel", "ValueError"}:
            return True
        return bool(bases & set(classes)) and all(protocol_or_exception(classes[b]) for b in bases & set(classes))

    for node in classes.values():
        for base in node.bases:
            name = getattr(base, "id", None)
            assert name not in classes or protocol_or_exception(classes[name]), f"{node.name}({name})"


def test_the_page_of_methods_is_current():
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert (ROOT / "docs" / "methods.md").read_text() == build.methods(), "run make docs"


def test_public_names_are_sorted_and_exist():
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        if module.endswith("__main__"):
            continue
        names = getattr(importlib.import_module(module), "__all__", None)
        if names is not None and module != "caveat":
            found = importlib.import_module(module)
            assert all(hasattr(found, name) for name in names), module
            assert len(set(names)) == len(names), module


def test_the_design_page_names_what_is_there():
    text = (ROOT / "docs" / "design.md").read_text()
    layout = text.partition("## 4. Layout")[2].partition("`tests/` mirrors")[0]
    named = set(re.findall(r"^      ((?:[\w.]+[/ ]?)+?)(?:  |$)", layout, flags=re.MULTILINE))
    said = {item.rstrip("/") for line in named for item in line.split()}
    top = {path.name for path in (ROOT / "src" / "caveat").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert said == {name for name in top if not name.startswith("__")}


def test_functions_are_short():
    """At most 60 lines a function, its signature and docstring apart."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            first = node.body[0]
            told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno + 1 if told else first.lineno
            assert node.end_lineno - start < 60, f"{path.name}: {node.name}"


def test_packages_are_reachable_after_import_caveat():
    import caveat

    packages = {
        path.parent.name for path in SOURCES if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 4
    }
    internal = {"cli", "graph", "studies", "caveat"}
    assert packages - internal == {name for name in dir(caveat) if name in packages}
    for name in packages - internal:
        assert getattr(caveat, name).__name__ == f"caveat.{name}"


def test_shapes_are_checked_in_tests():
    """Of functions and classes in every module that has shapes; the hook of conftest.py leaves the rest alone."""
    with pytest.raises(TypeCheckError):
        logits.msp(torch.zeros(3))
    with pytest.raises(TypeCheckError):
        Observations(torch.zeros(2, 3), torch.zeros(4, dtype=torch.long))
    assert hasattr(logits.msp, "__wrapped__")
    assert not hasattr(errors.known_name, "__wrapped__"), "it has no shape"
