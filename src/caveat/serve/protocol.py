"""The Open Inference Protocol, version 2, as clients of KServe and Triton speak it: JSON, and tensors as plain bytes.

https://github.com/kserve/open-inference-protocol, with Triton's extension for binary tensors.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from caveat import __version__
from caveat.guard.graph import ATTRIBUTES
from caveat.serve.inputs import array_of_json, body_of_json, tensor
from caveat.serve.limits import RequestError
from caveat.serve.served import Answer, Served, known

__all__ = ["HEADER", "INPUT", "KINDS", "Asked", "answered", "asked", "model", "server"]

HEADER = "inference-header-content-length"
"""Of a binary request or answer: how many bytes of JSON stand before the tensors."""
INPUT = "inputs"
KINDS = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
"""Types of tensors that are taken, as numpy writes them."""
BYTES = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}


def server() -> dict[str, Any]:
    """What stands under `/v2`."""
    return {"name": "caveat", "version": __version__, "extensions": ["binary_tensor_data"]}


def model(name: str, served: Served) -> dict[str, Any]:
    """What the guard takes and gives."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": served.platform,
        "inputs": [
            {"name": INPUT, "datatype": "INT64" if served.whole else "FP32", "shape": [-1, *served.shape]},
        ],
        "outputs": [_declared(output, served) for output in served.outputs],
        "parameters": served.about,
    }


def _declared(output: str, served: Served) -> dict[str, Any]:
    """Name, type and shape of an output."""
    kind = "INT64" if output in ("label", "predicted") else "BOOL" if output == "accepted" else "FP64"
    if served.task == "multilabel" and output in ("labels", "predicted"):
        kind = "BOOL"
    for_each_class = output == "probabilities" or (kind == "BOOL" and output != "accepted")
    return {"name": output, "datatype": kind, "shape": [-1, len(served.classes)] if for_each_class else [-1]}


@dataclass(frozen=True)
class Asked:
    """A request of inference."""

    inputs: Tensor
    id: str | None
    outputs: dict[str, bool]
    """Names of the outputs that are wanted, and whether as bytes."""


def asked(data: bytes, header: str | None, served: Served) -> Asked:
    """A request; `header` is what its header says of the length of its JSON.

    Raises
    ------
    RequestError
        If it is none of the protocol's, or asks for what there is not.
    OptionError
        If the tensor is not of the kind that the guard takes.
    """
    length = len(data)
    if header is not None:
        length = int(header) if header.isdecimal() and len(header) < 12 else -1
        if not 0 < length <= len(data):
            raise RequestError(400, "protocol", f"{HEADER}: expected the bytes of the JSON, {len(data)} at most")
    found = body_of_json(data[:length])
    parts = found.get("inputs")
    if (
        not isinstance(parts, list)
        or len(parts) != 1
        or not isinstance(parts[0], dict)
        or parts[0].get("name") != INPUT
    ):
        raise RequestError(422, "protocol", f"inputs: expected one tensor, called {INPUT!r}")
    identifier = found.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError(422, "protocol", "id: expected a text")
    return Asked(tensor(_array(parts[0], data[length:]), served), identifier, _wanted(found, served))


def _array(part: dict[str, Any], rest: bytes) -> np.ndarray:
    shape, kind = part.get("shape"), part.get("datatype")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RequestError(422, "protocol", f"datatype: expected one of {', '.join(KINDS)}, got {kind!r}"[:200])
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 16:
        raise RequestError(422, "protocol", "shape: expected a list of whole numbers")
    count, dtype = math.prod(shape), np.dtype(KINDS[kind])
    size = _parameters(part).get("binary_data_size")
    if size is not None:
        if size != len(rest) or size != count * dtype.itemsize:
            raise RequestError(
                400, "protocol",
                f"binary_data_size: {count} numbers of {kind} have {count * dtype.itemsize} bytes, got {len(rest)}",
            )  # fmt: skip
        return np.frombuffer(rest, dtype).reshape(shape)
    array = array_of_json(part.get("data"))
    if array.size != count:
        raise RequestError(422, "protocol", f"shape: {shape} has {count} numbers, data {array.size}"[:200])
    if dtype.kind != "f" and array.dtype.kind == "f":
        raise RequestError(422, "protocol", f"data: expected whole numbers, as {kind} are")
    low, high = (-math.inf, math.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if dtype.kind != "f" and array.size and not (low <= int(array.min()) and int(array.max()) <= high):
        raise RequestError(422, "protocol", f"data: expected numbers from {low} to {high}, as {kind} are")
    with np.errstate(over="ignore"):  # what is too large is infinite, on which a guard abstains
        return array.astype(dtype).reshape(shape)


def _parameters(part: dict[str, Any]) -> dict[str, Any]:
    found = part.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError(422, "protocol", "parameters: expected an object")
    return found


def _wanted(found: dict[str, Any], served: Served) -> dict[str, bool]:
    there = served.outputs
    all_binary = _parameters(found).get("binary_data_output") is True
    outputs = found.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(there, all_binary)
    if not isinstance(outputs, list) or not all(isinstance(one, dict) and one.get("name") in there for one in outputs):
        raise RequestError(422, "protocol", f"outputs: expected objects whose names are among {', '.join(there)}")
    return {one["name"]: _parameters(one).get("binary_data", all_binary) is True for one in outputs}


def answered(verdict: Answer, one: Asked, name: str) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where tensors follow it."""
    parts: list[dict[str, Any]] = []
    rest: list[bytes] = []
    for output, binary in one.outputs.items():
        values: np.ndarray = getattr(verdict, ATTRIBUTES.get(output, output)).cpu().numpy()
        kind = {"b": "BOOL", "i": "INT64"}.get(values.dtype.kind, "FP64")
        part: dict[str, Any] = {"name": output, "datatype": kind, "shape": list(values.shape)}
        if binary:
            rest.append(values.astype(BYTES[kind]).tobytes())
            part["parameters"] = {"binary_data_size": len(rest[-1])}
        else:
            part["data"] = [known(value) for value in values.ravel().tolist()] if kind == "FP64" else values.tolist()
        parts.append(part)
    about = {"model_name": name, "model_version": "1"} | ({} if one.id is None else {"id": one.id})
    text = json.dumps({**about, "outputs": parts}, allow_nan=False).encode()
    return b"".join((text, *rest)), len(text) if rest else None
