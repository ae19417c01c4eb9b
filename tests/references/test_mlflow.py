"""MLflow itself loads what a guard writes for it, in a process of its own, which has neither Caveat nor torch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.guard.test_mlflow import INPUTS, graph
from tests.references.peers import FOLDER

from caveat.guard import mlflow

pytestmark = pytest.mark.skipif(not (FOLDER / "mlflow").is_dir(), reason="mlflow is not there: run make references")

LOADS = """
import sys
sys.modules["caveat"] = sys.modules["torch"] = None
import json, warnings
warnings.simplefilter("ignore")
import mlflow.pyfunc, numpy, pandas
from mlflow.models import Model

def shown(found):
    return json.loads(found.to_json(orient="columns"))

def refused(model, inputs):
    try:
        model.predict(inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


def ran(code: str, place: Path) -> Any:
    """What a program prints last, as JSON."""
    settings = {
        "PYTHONPATH": str(FOLDER),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": str(place / "runs"),
    }
    line = [sys.executable, "-c", LOADS + code]
    made = subprocess.run(line, capture_output=True, text=True, cwd=place, env=os.environ | settings, check=False)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


def test_a_model_is_loaded_and_answers(tmp_path: Path) -> None:
    mlflow.write(graph(tmp_path / "g.onnx"), tmp_path / "model")
    np.save(tmp_path / "inputs.npy", INPUTS[:, None])
    found, of_example, taken, served, wrong = ran(
        """
model = mlflow.pyfunc.load_model("model")
about = Model.load("model")
inputs = numpy.load("inputs.npy")
example = about.load_input_example("model")
outputs = about.signature.outputs.input_names()
table = model.predict(inputs)
assert list(table.columns) == outputs, (list(table.columns), outputs)
served = about.get_serving_input("model")
print(json.dumps([shown(table), shown(model.predict(example)), str(about.signature.inputs), served,
                  refused(model, inputs[:, :, :2])]))
""",
        tmp_path,
    )
    assert found["label"] == {"0": 1, "1": -1, "2": -1}
    assert found["predicted_name"] == {"0": "dog", "1": "cat", "2": None}
    assert found["reason"] == {"0": "accepted", "1": "untrusted", "2": "invalid input"}
    assert found["accepted"] == {"0": True, "1": False, "2": False}
    assert found["score"]["1"] == pytest.approx(2 / 3)
    assert len(of_example["label"]) == 1
    assert "float32" in taken
    assert np.shape(json.loads(served)["inputs"]) == (1, 1, 3)
    assert "(-1, 1, 3)" in wrong


def test_the_lines_of_the_guide_run(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guard.md").read_text()
    (code,) = re.findall(r"```python\n(import mlflow.*?)```", page, flags=re.DOTALL)
    *first, last = code.strip().splitlines()
    mlflow.write(graph(tmp_path / "g.onnx"), tmp_path / "model")
    np.save(tmp_path / "inputs.npy", INPUTS[:, None])
    lines = ['images = numpy.load("inputs.npy")', *first, f"print(json.dumps(shown({last})))"]
    assert ran("\n".join(lines), tmp_path)["label"] == {"0": 1, "1": -1, "2": -1}


def test_a_table_is_taken_in_any_order_of_its_columns(tmp_path: Path) -> None:
    mlflow.write(graph(tmp_path / "g.onnx", shape="3", columns=["a", "b", "c"]), tmp_path / "model")
    found, of_example, wrong = ran(
        """
model = mlflow.pyfunc.load_model("model")
table = pandas.DataFrame({"c": [0.0, 9.0], "a": [9.0, 0.0], "b": [0.0, 0.0]})
example = Model.load("model").load_input_example("model")
print(json.dumps([shown(model.predict(table)), shown(model.predict(example)), refused(model, table[["a", "b"]])]))
""",
        tmp_path,
    )
    assert found["predicted_name"] == {"0": "cat", "1": "owl"}
    assert len(of_example["label"]) == 1
    assert "missing inputs ['c']" in wrong


def test_another_graph_is_refused(tmp_path: Path) -> None:
    data = graph(tmp_path / "g.onnx").read_bytes()
    for way in ("altered", "swapped", "removed"):
        place = mlflow.write(tmp_path / "g.onnx", tmp_path / way) / "guard.onnx"
        place.unlink() if way == "removed" else place.write_bytes(data.replace(b"dog", b"dig"))
    graph(tmp_path / "swapped" / "guard.onnx", classes=["a", "b", "c"])
    found = ran(
        """
def said(folder):
    try:
        mlflow.pyfunc.load_model(folder)
    except ValueError as error:
        return str(error)

print(json.dumps([said(folder) for folder in ("altered", "swapped", "removed")]))
""",
        tmp_path,
    )
    for words, message in zip(("was altered after", "is another guard", "cannot read"), found, strict=True):
        assert words in message
