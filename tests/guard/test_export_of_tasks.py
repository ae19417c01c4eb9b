"""Guards of regression and multi-label networks by the commands: one graph, the same verdicts, wherever it goes."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from tests.conftest import shapes_unchecked
from tests.serve.conftest import npy
from torch import Tensor

from caveat.cli.guard.export import example
from caveat.cli.main import main
from caveat.errors import CaveatError
from caveat.guard import onnx_guard, portable
from caveat.guard.multilabel import MultilabelGuard
from caveat.guard.regression import RegressionGuard
from caveat.guard.stored import Task
from caveat.serve.app import application
from caveat.serve.inputs import NPY
from caveat.serve.served import Served, of_graph, of_guard

pytest.importorskip("onnxruntime")
pq = pytest.importorskip("pyarrow.parquet")

TASKS: tuple[Task, ...] = ("regression", "multilabel")
NETS = """
import torch
from torch import nn

class Numbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs):
        x = inputs[:, 0]
        return torch.stack([self.slope * x, (0.5 * x.abs()).clamp_min(0.1)], dim=1)

def regression():
    return Numbers()

def multilabel():
    return nn.Linear(3, 3)
"""


def known(task: Task, count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    if task == "regression":
        return x, 2 * x[:, 0] + (0.5 * x[:, 0].abs()).clamp_min(0.1) * torch.randn(count, generator=generator)
    y = (torch.rand(count, 3, generator=generator) < torch.sigmoid(3 * x)).long()
    y[:, 0] |= (y.sum(dim=1) == 0).long()
    return x, y


def caveat(place: Path, *line: str) -> str:
    """What a command prints, run in a folder."""
    with pytest.MonkeyPatch.context() as patch, shapes_unchecked(), (place / "said").open("w") as said:
        patch.chdir(place)
        patch.syspath_prepend(place)
        patch.setattr(sys, "argv", ["caveat", *line])
        patch.setattr(sys, "stdout", said)
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code, (place / "said").read_text()
    return (place / "said").read_text()


@pytest.fixture(scope="module", params=TASKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path, Any]:
    """A task, a folder with a guard, its export and a table of fresh inputs, and the guard."""
    task: Task = request.param
    place = tmp_path_factory.mktemp(task)
    (place / "task_nets.py").write_text(NETS)
    space: dict[str, Any] = {}
    exec(NETS, space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = space[task]().eval()
    x, y = known(task, 400, 1)
    fit: Any = RegressionGuard.fit if task == "regression" else MultilabelGuard.fit
    options = {"outputs": "gaussian_std"} if task == "regression" else {}
    if task == "multilabel":
        with torch.no_grad():
            net.weight.copy_(3 * torch.eye(3))
    guard = fit(net, (x, y), keep=0.8, error=0.2, **options)
    guard.save(place / "guard", model=f"task_nets:{task}")
    fresh, truth = known(task, 300, 9)
    fresh[3, 1] = torch.nan
    columns = {"x": fresh.numpy()} | ({"y": truth.numpy()} if task == "regression" else {"labels": truth.numpy()})
    np.savez(place / "fresh.npz", **columns)
    line = ["--model", f"task_nets:{task}", "-o", "guard.onnx", "--triton", "models", "--mlflow", "model"]
    said = caveat(place, "guard", "export", "guard", *line)
    assert all(row in said for row in example("guard.onnx", (3,), task).splitlines())
    assert ("intervals" if task == "regression" else "label sets") + " stay those of the guard's own" in said
    return task, place, guard


def test_the_graph_is_a_guard_again(exported: tuple[Task, Path, Any]) -> None:
    _, place, guard = exported
    with np.load(place / "fresh.npz") as held:
        fresh = torch.from_numpy(held["x"])
    again, verdict = onnx_guard.load(place / "guard.onnx")(fresh), guard(fresh)
    assert 0 < int(verdict.accepted.sum()) < 300
    assert type(again) is type(verdict)
    for name, wanted in vars(verdict).items():
        found = getattr(again, name)
        if isinstance(wanted, Tensor) and wanted.is_floating_point():
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
        elif isinstance(wanted, Tensor):
            assert torch.equal(found, wanted), name
        else:
            assert found == wanted, name
    assert again.explain(0) == verdict.explain(0)


def test_the_lines_that_are_printed_run(exported: tuple[Task, Path, Any], monkeypatch, capsys) -> None:
    task, place, guard = exported
    monkeypatch.chdir(place)
    x = known(task, 20, 12)[0]
    np.save("inputs.npy", x.numpy())
    exec(example("guard.onnx", (3,), task), {})
    lines, verdict = capsys.readouterr().out.splitlines(), guard(x)
    assert [line == "abstained" for line in lines] == (~verdict.accepted).tolist()
    row = int(verdict.accepted.nonzero()[0])
    if task == "regression":
        assert lines[row] == f"{float(verdict.lower[row]):g} to {float(verdict.upper[row]):g}"
    else:
        assert lines[row] == str([str(k) for k in verdict.labels[row].nonzero().flatten().tolist()])


def test_run_and_monitor_take_the_graph(exported: tuple[Task, Path, Any]) -> None:
    task, place, _ = exported
    caveat(place, "guard", "run", "guard", "npz:fresh.npz", "--model", f"task_nets:{task}", "-o", "folder.parquet")
    caveat(place, "guard", "run", "guard.onnx", "npz:fresh.npz", "-o", "graph.parquet")
    one, other = (pq.read_table(place / f"{name}.parquet").to_pydict() for name in ("folder", "graph"))
    assert list(one) == list(other)
    for name, values in one.items():
        if isinstance(values[0], float):
            np.testing.assert_allclose(np.array(other[name], float), np.array(values, float), 1e-5, 1e-5)
        elif name != "probs":
            assert other[name] == values
    for guard, verdicts in (("guard", "folder.parquet"), ("guard.onnx", "graph.parquet")):
        said = caveat(place, "guard", "monitor", guard, verdicts, "-o", f"monitor-{guard}")
        assert said.startswith("300 verdicts, 300 of them new; 0 labels.")


def test_the_card_says_what_is_guaranteed(exported: tuple[Task, Path, Any]) -> None:
    task, place, guard = exported
    caveat(place, "guard", "card", "guard", "-o", "card.md")
    text = (place / "card.md").read_text()
    assert "accepts a new in-distribution input with probability 80.0% or more" in text
    sentence = "holds its label with probability 80.0% or more" if task == "regression" else "a share of 20.0% at most"
    assert sentence in text
    assert f"| accepted | {guard.decision.promise.kept:.2%} |" in text
    assert text.count("`sha256`") == 0
    assert text.count(".safetensors` | `") == 2
    assert (
        guard.card().partition("## Versions")[0].replace("not named", f"task\\_nets:{task}")
        == (text.partition("## Versions")[0])
    )


def test_mlflow_and_triton_are_told_what_it_gives(exported: tuple[Task, Path, Any]) -> None:
    task, place, guard = exported
    found = portable._load_pyfunc(str(place / "model" / "guard.onnx"))
    with np.load(place / "fresh.npz") as held:
        fresh = held["x"]
    table, verdict = found.answer(fresh), guard(torch.from_numpy(fresh))
    assert table["accepted"].tolist() == verdict.accepted.tolist()
    assert table["reason"][3] == "invalid input"
    outputs = next(line for line in (place / "model" / "MLmodel").read_text().splitlines() if "  outputs: " in line)
    signature = json.loads(json.loads(outputs.split(": ", 1)[1]))
    assert [one["name"] for one in signature] == list(table)
    if task == "regression":
        np.testing.assert_allclose(table["lower"], verdict.lower.numpy(), rtol=1e-5)
        assert {one["type"] for one in signature} == {"double", "boolean", "string"}
    else:
        assert table["labels"][0] == [str(k) for k in verdict.labels[0].nonzero().flatten().tolist()]
        assert signature[0] == {"type": "array", "items": {"type": "string"}, "name": "labels", "required": True}
    config = (place / "models" / "guard" / "config.pbtxt").read_text()
    names = [part.split('"')[1] for part in config.split("{ name: ")[1:]]
    assert names == ["inputs", *found.names]


@pytest.mark.parametrize("way", ["folder", "graph"])
def test_the_service_answers(exported: tuple[Task, Path, Any], way: str) -> None:
    task, place, guard = exported
    served: Served = of_guard(guard) if way == "folder" else of_graph(onnx_guard.load(place / "guard.onnx"))
    x = known(task, 40, 14)[0]
    x[1, 0] = torch.nan
    verdict = guard(x)
    assert served.watch is not None
    with TestClient(application(served, docs=True), raise_server_exceptions=False) as client:
        answer = client.post("/v1/verdict", content=npy(x.numpy()), headers={"content-type": NPY[0]}).json()
        rows, told = answer["verdicts"], client.get("/openapi.json").json()["components"]["schemas"]
        kind = {"regression": "Regression", "multilabel": "Multilabel"}[task]
        assert set(rows[0]) == set(told[f"{kind}Verdict"]["properties"])
        assert set(answer) == set(told[f"{kind}Verdicts"]["properties"])
        assert [row["accepted"] for row in rows] == verdict.accepted.tolist()
        assert [row["explanation"] for row in rows] == [verdict.explain(row) for row in range(40)]
        assert answer["error"] == 0.2
        if task == "regression":
            assert rows[1]["prediction"] is None
            assert rows[0]["upper"] == pytest.approx(float(verdict.upper[0]), rel=1e-5)
            assert rows[0]["epistemic"] is None
        else:
            assert rows[1]["predicted"] is None
            row = int((~verdict.accepted)[2:].nonzero()[0]) + 2
            assert rows[row]["labels"] is None
            assert rows[row]["predicted"] == [str(k) for k in verdict.predicted[row].nonzero().flatten().tolist()]
        check_protocol(client, served, x, verdict)


def check_protocol(client: TestClient, served: Served, x: Tensor, verdict: Any) -> None:
    """That clients of KServe and Triton get what was declared."""
    declared = {one["name"]: one for one in client.get("/v2/models/guard").json()["outputs"]}
    part = {"name": "inputs", "shape": list(x.shape), "datatype": "FP32"}
    part["data"] = [None if np.isnan(value) else value for value in x.flatten().tolist()]
    found = client.post("/v2/models/guard/infer", json={"inputs": [part]}).json()
    assert [one["name"] for one in found["outputs"]] == list(served.outputs) == list(declared)
    for one in found["outputs"]:
        assert one["datatype"] == declared[one["name"]]["datatype"]
        assert [len(x), *declared[one["name"]]["shape"][1:]] == one["shape"]
    accepted = next(one for one in found["outputs"] if one["name"] == "accepted")
    assert accepted["data"] == verdict.accepted.tolist()


def test_what_cannot_be_exported_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    x, y = known("regression", 400, 1)
    space: dict[str, Any] = {}
    exec(NETS, space)
    guard = RegressionGuard.fit(space["Numbers"]().eval(), (x, y), outputs="gaussian_std", dtype="bfloat16")
    with pytest.raises(CaveatError, match="dtype: the guard runs its network in bfloat16"):
        guard.export(tmp_path / "guard.onnx")
    assert not list(tmp_path.iterdir())
