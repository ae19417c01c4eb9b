"""The pages say what the code does: their Python runs, their commands and messages exist, their links hold."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import caveat
from tests.test_readme import parsed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
GUIDES = {name: text for name, text in PAGES.items() if not name.startswith("skeletons/")}
ELSEWHERE = {"adding-a-method.md": "tests/test_adding_a_method.py", "export.md": "tests/guard/test_export.py"}
"""Pages whose blocks have a test of their own."""


def blocks(text: str, *languages: str) -> list[str]:
    """The code of the page's fences in one of the languages; that of indented blocks, which have none, with ""."""
    fences = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    found = [code for language, code in fences if language in languages]
    if "" in languages:
        outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        found += [code.replace("\n    ", "\n")[4:] for code in re.findall(r"(?<=\n\n)(?:    .*\n)+", outside)]
    return found


def batches(seed: int, count: int = 100) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = torch.arange(2 * count) % 3
    inputs = 0.2 * torch.rand(2 * count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    inputs[torch.arange(2 * count), 0, labels] += 0.5
    return [(inputs[:count], labels[:count]), (inputs[count:], labels[count:])]


class Wrapped(nn.Module):
    """As a classifier of transformers: inputs by name, the logits among other outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.network(pixel_values)}


@pytest.fixture
def names(generator: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader has: a trained network and its data."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        for inputs, labels in batches(0):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    far = [torch.rand(100, 1, 8, 8, generator=generator)]
    monkeypatch.chdir(tmp_path)
    few = {"scores": ["msp"], "calibrations": ["temperature"], "replicas": 5}
    monkeypatch.setattr(caveat, "audit", partial(caveat.audit, **few))  # pages show the call, not all that it computes
    return {
        "torch": torch, "nn": nn, "np": np, "Tensor": torch.Tensor, "caveat": caveat, "generator": generator,
        "model": model.eval(), "optimizer": optimizer,
        "hf_model": Wrapped(model), "hf_loader": [{"pixel_values": x, "labels": y} for x, y in batches(1)],
        "train_loader": batches(0), "test_loader": batches(1), "held_out_loader": batches(2), "cars_loader": far,
        "held_out": batches(2), "ood_held_out": far, "batch": batches(3)[0][0],
        "images": batches(3)[0][0], "inputs": batches(3)[0][0][:5], "labels": batches(3)[0][1],
    }  # fmt: skip


def regression(names: dict[str, Any]) -> None:
    inputs = torch.randn(200, 4, generator=names["generator"])
    model = nn.Linear(4, 2).eval()
    with torch.no_grad():
        model.bias[1] = 3.0  # a deviation is positive
        model.weight[1] = 0
    sets = [(inputs, inputs.sum(dim=1))]
    names |= {"model": model, "test_loader": sets, "held_out_loader": sets, "inputs": inputs}


def multilabel(names: dict[str, Any]) -> None:
    inputs = torch.randn(400, 4, generator=names["generator"])
    sets = [(inputs, (inputs[:, :3] + 0.5 * torch.randn(400, 3, generator=names["generator"]) > 0).long())]
    model = nn.Linear(4, 3).eval()
    with torch.no_grad():
        model.weight.copy_(3 * torch.eye(3, 4))
    names |= {
        "model": model, "test_loader": sets, "held_out_loader": sets, "inputs": inputs,
        "other_loader": [torch.randn(100, 4, generator=names["generator"]) * 9],
    }  # fmt: skip


def hub(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The page pushes to the hub: what it calls is there, and nothing is sent."""
    from caveat import guard

    asked = ModuleType("mynet")
    asked.build = lambda: names["model"]
    monkeypatch.setattr(guard, "push_to_hub", lambda folder, name: None)
    monkeypatch.setattr(guard, "from_hub", lambda name, model, *, revision: None)
    names["mynet"] = asked


PYTHON = [name for name, text in GUIDES.items() if blocks(text, "python") and name not in ELSEWHERE]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_a_page_runs(page: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, in one namespace."""
    if page == "regression.md":
        regression(names)
    elif page == "multilabel.md":
        multilabel(names)
    elif page == "guard.md":
        hub(names, monkeypatch)
    elif page == "guard-promises.md":  # to promise much takes many samples
        names |= {"held_out": batches(2, 3000), "ood_held_out": [torch.zeros(1000, 1, 8, 8)]}
    module = ModuleType("page")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "page", module)
    for number, code in enumerate(blocks(GUIDES[page], "python")):
        if code.startswith("import mlflow"):  # tests/references/test_mlflow.py runs it, where MLflow is
            continue
        exec(compile(code, f"{page}, block {number}", "exec"), vars(module))


def commands() -> Iterator[tuple[str, str]]:
    """Every line of a page that calls caveat."""
    for page, text in GUIDES.items():
        for code in blocks(text, "console", "sh", "bash", ""):
            for line in re.sub(r"\\\n\s*", "", code).splitlines():
                if found := re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )?(?:torchrun .* -m )?(caveat .*)", line):
                    yield page, found[1]


COMMANDS = sorted(set(commands()))


def fault(line: str) -> str:
    """What the command line has against a line; nothing if its options exist and their values are of their kind."""
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), None)]
    if {"COMMAND", "...", "--help"} & set(words):
        return ""  # a way of saying which
    try:
        parsed(shlex.join(words))
    except Exception as error:
        return str(error)
    return ""


def test_every_command_of_the_pages_is_one() -> None:
    assert {f"{page}: {line}": said for page, line in COMMANDS if (said := fault(line))} == {}
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("line", ["caveat audit --tset x -o y", "caveat certfy", "caveat guard fit x -o y --keep high"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    assert fault(line)


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """All of the code, taken apart once, with the file that each part is of."""
    files = sorted((ROOT / "src" / "caveat").rglob("*.py"))
    return [(path.name, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


def test_every_message_of_the_troubleshooting_page_is_printed() -> None:
    """Letter by letter, with … for what differs."""
    told = set()
    for _, node in nodes():
        if isinstance(node, ast.JoinedStr):
            told.add("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            told.add(node.value)
    shown = [code.strip() for code in blocks(PAGES["troubleshooting.md"], "text")]
    assert [message for message in shown if message not in told] == []
    assert len(shown) >= 20


def parameters(text: str) -> list[str]:
    """The names that a docstring describes under Parameters.

    >>> parameters("Sum.\\n\\nParameters\\n----------\\na, b\\n    What is added.\\nc: what not.\\n\\nMore.")
    ['a', 'b', 'c']
    """
    found = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    lines = found[1].splitlines() if found else []
    return [name for line in lines if line[:1].strip() for name in line.split(": ")[0].split(", ")]


def test_parameters_of_docstrings_are_those_of_the_signature() -> None:
    """A search and replace had made `ood` a parameter OOD."""
    strange = []
    for file, node in nodes():
        if isinstance(node, ast.FunctionDef):
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            names = {one.arg for one in given} | {one.arg for one in (node.args.vararg,) if one}
            told = parameters(ast.get_docstring(node) or "")
            strange += [f"{file}: {node.name}({name})" for name in told if name not in names]
    assert strange == []


def slug(heading: str) -> str:
    """The anchor that Python-Markdown gives a heading.

    >>> slug("Certified training, and certified `OOD` inputs")
    'certified-training-and-certified-ood-inputs'
    """
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def test_no_link_is_dead() -> None:
    """Between pages, to their headings, and to files of the repository; of generated pages mkdocs sees to it."""
    dead = []
    for page, text in GUIDES.items():
        plain = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", plain):
            if re.match(r"https?:", target) or target.startswith(("reference/", "../reference/", "api/")):
                continue
            path, _, anchor = target.partition("#")
            there = (DOCS / page).parent / path if path else DOCS / page
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M) if anchor else []
            if not there.exists() or (anchor and anchor not in map(slug, heads)):
                dead.append(f"{page}: {target}")
    assert dead == []


def test_every_page_is_in_the_navigation() -> None:
    """A page that nothing leads to is not read; those of the gallery are also found from its list."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"[\w/-]+\.md", text))
    lost = {name for name in GUIDES if not name.startswith("gallery/")} - named
    assert not lost, f"{lost}: give each a line under nav in mkdocs.yml"
    assert {name for name in named if not name.startswith(("api/", "reference/", "examples/"))} <= set(GUIDES)


@pytest.mark.parametrize("words", ["OOD threshold", "temperature scaling", "MC dropout", "DeepPoly"])
def test_what_people_search_for_is_there(words: str) -> None:
    assert any(re.search(re.escape(words).replace(r"\ ", r"\s+"), text, re.I) for text in GUIDES.values())


def test_the_pages_ask_nothing_of_the_network() -> None:
    """No font, no script and no picture of another host: the site is read offline, and nobody sees who reads it."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert re.search(r"- offline\b", text)
    assert "https://" not in text
    for page, found in GUIDES.items():
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(img|script|link|iframe)\b", found), page
