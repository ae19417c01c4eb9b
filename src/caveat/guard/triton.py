"""An exported guard as a model of a Triton model repository: `NAME/config.pbtxt` and `NAME/1/model.onnx`."""

import json
from pathlib import Path
from typing import Any

from caveat.errors import OptionError
from caveat.files import read_bytes, write_atomically, write_bytes
from caveat.guard.onnx_guard import MOST

__all__ = ["STARTS", "check_output", "config", "ours", "write"]

STARTS = "# written by Caveat\n"
"""How a file begins that tells another program of a guard."""
TYPES = {1: "FP32", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 11: "FP64", 2: "UINT8", 3: "INT8"}
"""Triton's names of the types of ONNX that a guard takes and gives."""
BATCH = 256
"""Inputs at most that Triton joins to one batch."""


def check_output(models: Path, name: str, *, option: str = "--triton") -> None:
    """Refuse a repository where another model has this name.

    Raises
    ------
    OptionError
        If it has, or the repository is a file.
    """
    place = models / name
    if models.exists() and not models.is_dir():
        raise OptionError(f"{option}: {models} is a file; expected the folder of a model repository")
    if place.exists() and not ours(place / "config.pbtxt"):
        raise OptionError(
            f"{option}: {place} is not of Caveat and would be replaced; give the graph another name with -o"
        )


def write(graph: Path, models: Path) -> Path:
    """Put an exported guard into a model repository, under the graph's name; gives the model's folder.

    Raises
    ------
    OptionError
        As `check_output`.
    """
    import onnx

    check_output(models, graph.stem)
    data, place = read_bytes(graph, name="guard", most=MOST), models / graph.stem
    text = config(graph.stem, onnx.load_model_from_string(data))
    write_bytes(place / "1" / "model.onnx", data)
    write_atomically(place / "config.pbtxt", text)
    return place


def config(name: str, proto: Any) -> str:
    """What Triton is told of a graph: its inputs and outputs for one input, without the first axis, which is the batch.

    The threshold has a default in the graph and is no input here.
    """
    set_already = {one.name for one in proto.graph.initializer}
    inputs = [one for one in proto.graph.input if one.name not in set_already]
    lines = [
        f"{STARTS}name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {BATCH}",
        *(f"input [\n  {_tensor(one)}\n]" for one in inputs),
        *(f"output [\n  {_tensor(one)}\n]" for one in proto.graph.output),
        "dynamic_batching { }",
    ]
    return "\n".join(lines) + "\n"


def _tensor(value: Any) -> str:
    kind = value.type.tensor_type
    sizes = [size.dim_value or -1 for size in kind.shape.dim][1:]
    # one number for each input has no axis left, which Triton writes as one that is taken away again
    shape = f"dims: [ {', '.join(map(str, sizes))} ]" if sizes else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"{{ name: {json.dumps(value.name)} data_type: TYPE_{TYPES[kind.elem_type]} {shape} }}"


def ours(path: Path) -> bool:
    """Whether a file begins with `STARTS`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(STARTS)) == STARTS.encode()
