"""An exported guard as a model of MLflow: a folder that `mlflow.pyfunc.load_model` reads and MLflow serves.

It holds the graph, and a copy of `portable`, which answers with numpy and onnxruntime alone: a server of MLflow
installs what `requirements.txt` names, and a graph should need neither torch nor Caveat there. No pickle; MLflow is not
needed to write it.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from caveat.errors import DataError, OptionError
from caveat.files import parse_json, read_bytes, write_atomically, write_bytes
from caveat.guard import portable
from caveat.guard.onnx_guard import MOST
from caveat.guard.portable import COLUMNS, MORE, SEAL, PortableGuard
from caveat.guard.triton import STARTS, ours

__all__ = ["check_output", "write"]

LOADER = "caveat_guard"
"""The name of `portable` in the folder: not one of Caveat's, which may be installed there too."""
KINDS: dict[str, str] = {
    "label": "long", "accepted": "boolean", "predicted": "long", "predicted_name": "string", "reason": "string",
}  # fmt: skip
"""Columns of a verdict that are no numbers with a fraction, in MLflow's names of types."""
LISTS = {"labels": "string", "predicted": "string", "probabilities": "double"}
"""Columns of lists, of a network of several labels, and what these are of."""


def check_output(folder: Path, *, option: str = "--mlflow") -> None:
    """Refuse a folder that holds something else than a guard as a model of MLflow.

    Raises
    ------
    OptionError
        If it does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{option}: {folder} is a file; expected a folder for a model of MLflow")
    if folder.exists() and any(folder.iterdir()) and not ours(folder / "MLmodel"):
        raise OptionError(f"{option}: {folder} is not of Caveat and would be changed; choose another folder")


def write(graph: Path, folder: Path) -> Path:
    """Write an exported guard as a model of MLflow to `folder`, which is given back.

    Raises
    ------
    OptionError
        As `check_output`.
    DataError
        If the file is no exported guard, or was altered.
    """
    check_output(folder)
    data = read_bytes(graph, name="guard", most=MOST)
    try:
        guard = PortableGuard(data, graph)
    except ValueError as error:
        raise DataError(str(error)) from None
    example = _example(guard)
    files = {"requirements.txt": _REQUIREMENTS.format(onnxruntime=version("onnxruntime"))}
    files["python_env.yaml"] = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    files["conda.yaml"] = _CONDA.format(python=platform.python_version())
    if example is not None:
        files["input_example.json"] = json.dumps(example)
        files["serving_input_example.json"] = json.dumps(
            {"inputs" if guard.columns is None else "dataframe_split": example}
        )
    write_bytes(folder / "guard.onnx", data)
    write_bytes(folder / "code" / f"{LOADER}.py", read_bytes(Path(portable.__file__), name="portable"))
    for name, text in files.items():
        write_atomically(folder / name, text)
    write_atomically(folder / "MLmodel", _described(guard, example=example is not None))  # last: it names the others
    return folder


_REQUIREMENTS = """mlflow
numpy
onnxruntime>={onnxruntime}
pandas
"""
_CONDA = """name: guard
channels:
- conda-forge
dependencies:
- python={python}
- pip
- pip:
  - -r requirements.txt
"""


def _described(guard: PortableGuard, *, example: bool) -> str:
    """The MLmodel: what loads the graph, and what it takes and gives."""
    outputs = [
        _column(name, guard) | {"name": name, "required": name != "predicted_name"}
        for name in COLUMNS[guard.task]
        if name not in MORE[guard.task] or name in guard.names
    ]
    lines = [
        "flavors:",
        "  python_function:",
        f"    loader_module: {LOADER}",
        "    code: code",
        "    data: guard.onnx",
        f"    config: {{{SEAL}: {json.dumps(guard.seal)}}}",
        "    env: {conda: conda.yaml, virtualenv: python_env.yaml}",
        f"    python_version: {platform.python_version()}",
        "    streamable: false",
        f"model_uuid: {json.dumps(guard.seal[:32])}",
        "signature:",
        f"  inputs: {json.dumps(json.dumps(_taken(guard)))}",
        f"  outputs: {json.dumps(json.dumps(outputs))}",
        "  params: null",
    ]
    if example:
        kind = "type: ndarray" if guard.columns is None else "type: dataframe, pandas_orient: split"
        lines += [
            "saved_input_example_info:",
            f"  {{artifact_path: input_example.json, serving_input_path: serving_input_example.json, {kind}}}",
        ]
    return STARTS + "\n".join(lines) + "\n"


def _column(name: str, guard: PortableGuard) -> dict[str, Any]:
    """The type of a column in MLflow's words."""
    if guard.task == "multilabel" and name in LISTS:
        return {"type": "array", "items": {"type": LISTS[name]}}
    return {"type": KINDS.get(name, "double")}


def _taken(guard: PortableGuard) -> list[dict[str, Any]]:
    """Inputs in MLflow's words: columns by name where the guard knows them, one tensor else."""
    if guard.columns is not None:
        return [{"type": "double", "name": name, "required": True} for name in guard.columns]
    return [{"type": "tensor", "tensor-spec": {"dtype": guard.dtype.name, "shape": [-1, *guard.shape]}}]


def _example(guard: PortableGuard) -> Any:
    """One generated input, where the guard knows of which size and how large; it shows the form, and is no datum."""
    largest = parse_json(guard.about["largest"], name="guard", where="the graph")
    if largest is None or -1 in guard.shape:
        return None
    values = np.random.default_rng(0).random((1, *guard.shape)) * largest
    data = [[float(f"{value:.4g}") for value in row] for row in values.reshape(1, -1)]
    if guard.columns is not None:
        return {"columns": guard.columns, "data": data}
    return np.reshape(data, values.shape).tolist()
