"""A guard as one file that runs without Python: network, calibration, score and threshold in one ONNX graph."""

import json
import logging
import re
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from caveat import devices, evaluation
from caveat.batches import given
from caveat.errors import DataError, MissingExtraError, ModelError, OptionError, check_suffix
from caveat.files import write_bytes
from caveat.guard.graph import ATTRIBUTES, Traced
from caveat.guard.portable import BLANK, INPUTS, SEAL, sealed
from caveat.inputs import OTHER_UNITS, moved
from caveat.posteriors.at_once import AtOnce
from caveat.posteriors.dropout import Dropout
from caveat.records.base import stamp

__all__ = ["OURS", "THRESHOLD", "check_output", "on_cpu", "session", "translated", "write"]

THRESHOLD = "threshold"
"""Name of what a graph takes beside the inputs."""
OURS = "caveat_version"
"""A key of the metadata that every graph of ours has."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TRACED, COMPARED = 3, 32
"""Inputs that the graph is traced with, and that it is compared on with PyTorch."""
SLACK = 1e-4
"""What numbers of the graph may differ by from PyTorch's, relative to their size or to 1: another order of sums."""
EXACT = ("label", "accepted", "labels")
"""What is decided by the threshold of the score: near it, the last digits decide."""
Session = Callable[[dict[str, Any]], list[Any]]
Found = TypeVar("Found", bound=nn.Module)


def on_cpu(guard: Found) -> Found:
    """The guard where a graph can be made of it: itself, or a copy of one that is elsewhere."""
    return guard if devices.of(guard).type == "cpu" else deepcopy(guard).to("cpu")


def write(
    guard: Callable[[Tensor], Any], graph: Traced, path: Path, *, example: Tensor | None = None
) -> dict[str, str]:
    """Write a guard on the CPU as ONNX, whole or not at all; its metadata is given back.

    The graph takes `inputs` `(n, ...)` for any n, and `threshold`, which is the guard's where it is left out. What is
    written has been run by onnxruntime on inputs generated for it, and answered as PyTorch does.

    Parameters
    ----------
    guard
        What it is compared with: from inputs to verdicts.
    example
        A few inputs; needed where none can be generated (`largest` or the shape is not known: tokens).

    Raises
    ------
    MissingExtraError
        Without the extra `export`.
    OptionError
        If the score or the path cannot be used, or an example is needed.
    ModelError
        If the network cannot be traced, or computes something else as a graph.
    """
    check_output("path", path)
    graph.check()
    if graph.decision.dtype != "float32":
        raise OptionError(
            f"dtype: the guard runs its network in {graph.decision.dtype} by autocast, which an ONNX graph does not "
            "know: fit it with dtype float32"
        )
    inputs = _inputs(graph, example)
    if isinstance(graph.model, AtOnce):
        graph.model.fix(inputs)
    proto = _traced(graph, inputs)
    metadata = {**_metadata(graph), SEAL: BLANK}
    _finish(proto, graph, metadata)
    try:
        data = proto.SerializeToString()
    except ValueError as error:
        raise ModelError(f"model: it is larger than 2 GB, the most that one ONNX file holds ({error})") from None
    _compare(guard, graph, session(data), inputs)
    seal = sealed(data)
    write_bytes(path, data.replace(BLANK.encode(), seal.encode()))
    return {name: text for name, text in metadata.items() if not name.startswith("reference")} | {SEAL: seal}


def check_output(option: str, path: Path) -> None:
    """Refuse a path where an export would replace something else; and to export without what it takes.

    Raises
    ------
    MissingExtraError, OptionError
        If packages are missing, its name ends otherwise, it is a folder, or a file that no export wrote.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, "export", "Export as ONNX")
    check_suffix(option, path.name, [".onnx"])
    if path.is_dir():
        raise OptionError(f"{option}: {path} is a folder; expected the name of a file")
    if path.exists() and not _ours(path):
        raise OptionError(f"{option}: {path} was not written by Caveat and would be replaced; choose another name")


def _ours(path: Path) -> bool:
    import onnx

    try:
        found = onnx.load_model(path, load_external_data=False)
    except Exception:  # whatever protobuf says of a file that is none
        return False
    return any(entry.key == OURS for entry in found.metadata_props)


def _inputs(graph: Traced, example: Tensor | None) -> Tensor:
    """Inputs of the kind that the network takes."""
    made = graph.decision
    if example is not None:
        found = given(example, "example")
        if not isinstance(found, Tensor) or len(found) < 1:
            raise DataError("example: expected a batch of inputs in one tensor; a graph takes no several ones")
        return moved(found[torch.arange(max(2, len(found))) % len(found)][:COMPARED], graph.model)
    if made.largest is None or not made.shape:
        raise OptionError(
            "example: the guard's inputs are whole numbers, of several parts or of no fixed shape, so that none can be "
            "generated: call guard.export(path, example=...) in Python with a few of them in one tensor"
        )
    generator = torch.Generator().manual_seed(0)
    return moved(torch.rand(COMPARED, *made.shape, generator=generator) * made.largest, graph.model)


def _traced(graph: Traced, inputs: Tensor) -> Any:
    """The graph as a message of ONNX; what is said of a failure tells whether the network or the score is to blame."""
    try:
        return _translated(graph, graph, inputs)
    except Exception as error:  # torch and onnxscript raise whatever the operation at fault does
        reason = _reason(error)
    plain = graph.plain()
    if plain is not None:
        try:
            _translated(plain, graph, inputs)
        except Exception:
            plain = None
    if plain is None:
        raise ModelError(
            f"model: it cannot be written as an ONNX graph ({reason}): export needs a network whose operations do not "
            "depend on the values of its inputs"
        )
    raise OptionError(
        f"score: {graph.score} cannot be written as an ONNX graph ({reason}): fit the guard with another "
        "score, such as energy, knn or gram"
    )


def _translated(module: Any, graph: Traced, inputs: Tensor) -> Any:
    default = torch.tensor(graph.decision.promise.threshold, dtype=torch.float64)
    given = {INPUTS: inputs[:TRACED], THRESHOLD: default}
    several = graph.model if isinstance(graph.model, AtOnce) else None
    if several is None or not several.together:
        return translated(module, given, graph.outputs)
    try:
        return translated(module, given, graph.outputs)
    except Exception:  # torch cannot trace every operation for all draws at once: not a `cat`, for instance
        several.together = False
        return translated(module, given, graph.outputs)


def translated(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Any:
    """A module of tensors as a message of ONNX, for any number of rows of its inputs; numbers `()` are no rows.

    Raises
    ------
    Exception
        Whatever torch and onnxscript raise where an operation cannot be traced or translated.
    """
    rows = tuple({0: torch.export.Dim.DYNAMIC} if tensor.ndim else None for tensor in inputs.values())
    with _quiet(), evaluation.without_gradients():
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=rows, strict=False)
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    _name(made.model.graph, [*inputs, *outputs])
    return made.model_proto


def _name(graph: Any, names: Sequence[str]) -> None:
    """Name what a graph takes and gives; a value within that has one of these names gets another."""
    for value in [*graph.initializers.values(), *(value for node in graph for value in node.outputs), *graph.inputs]:
        if value.name in names:
            value.name = f"{value.name}_within"
    for value, name in zip((*graph.inputs, *graph.outputs), names, strict=True):
        value.name = name


@contextmanager
def _quiet() -> Generator[None]:
    """Without the warnings of libraries about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The operation that is at fault, or the first line of what was said."""
    text = str(error)
    operation = re.search(r"OpOverload\(op='([\w.]+)'", text)
    if operation is not None:
        return f"ONNX has no operation {operation[1]}"
    return next((line.strip(" -") for line in text.splitlines() if line.strip()), type(error).__name__)[:200]


def _metadata(graph: Traced) -> dict[str, str]:
    """What whoever runs the graph should know of it: texts, of which those that are no words are JSON."""
    made, made_by = graph.decision, stamp()
    several = graph.model if isinstance(graph.model, AtOnce) else None
    draws: dict[str, str] = {}
    if several is not None:
        fixed = isinstance(several.posterior, Dropout)
        draws = {"draws": str(several.count), "masks": f"fixed, of seed {several.seed}" if fixed else "none"}
    return {
        **{name: str(value) for name, value in made_by.items()},
        **graph.about,
        "promise": json.dumps(vars(made.promise)),
        "score": graph.score,
        "shape": json.dumps(made.shape),
        "largest": json.dumps(made.largest),
        "columns": json.dumps(made.columns),
        **draws,
        "reference": json.dumps(made.reference.tolist()),  # what a monitor compares verdicts with
    }


def _finish(proto: Any, graph: Traced, metadata: dict[str, str]) -> None:
    """Give the threshold its default, the number of inputs a name, and the graph its metadata."""
    from onnx import helper, numpy_helper

    default = torch.tensor(graph.decision.promise.threshold, dtype=torch.float64).numpy()
    proto.graph.initializer.append(numpy_helper.from_array(default, THRESHOLD))
    free = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if free and size.dim_param == free:
                size.dim_param = "n"
    helper.set_model_props(proto, metadata)


def session(data: bytes, *, threads: int = 1) -> Session:
    """What onnxruntime makes of a graph on the CPU: from inputs by name to outputs in order.

    Raises
    ------
    ModelError
        If it cannot be run.
    """
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # it warns of every default that can be set
    try:
        made: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no class of its own for what it cannot run
        raise ModelError(
            f"model: onnxruntime cannot run the graph ({_reason(error)}); networks of double or half precision are a "
            "usual cause: export a guard of model.float()"
        ) from None
    return lambda given: made.run(None, given)


def _compare(guard: Callable[[Tensor], Any], graph: Traced, session: Session, inputs: Tensor) -> None:
    """Ask both for the inputs, larger and smaller ones and some that cannot be read, in batches of several sizes."""
    made = graph.decision
    asked = [inputs, inputs[:1]]
    if inputs.is_floating_point():
        broken = inputs[:3].clone()
        broken[0].fill_(torch.nan)
        broken[1].fill_(2 * OTHER_UNITS * (made.largest or 1.0))
        asked += [2 * inputs[:7], broken]
    for batch in asked:
        expected = _parts(guard(batch), graph.outputs)
        found = dict(zip(graph.outputs, session({INPUTS: batch.numpy()}), strict=True))
        for name, wanted in expected.items():
            _check_equal(name, torch.from_numpy(found[name]), wanted, expected["score"], made.promise.threshold)


def _parts(verdict: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: getattr(verdict, ATTRIBUTES.get(name, name)) for name in names}


def _check_equal(name: str, found: Tensor, wanted: Tensor, score: Tensor, threshold: float) -> None:
    clear = (score - threshold).abs() > SLACK * (1 + abs(threshold))  # nearer, the last digits decide
    clear |= score.isnan()
    if name in EXACT:
        same = bool((found == wanted)[clear].all())
    elif name == "p_value" or not wanted.is_floating_point():
        same = found.shape == wanted.shape  # steps: a last digit may take one
    else:
        same = found.shape == wanted.shape and torch.allclose(
            found.double(), wanted.double(), rtol=SLACK, atol=SLACK, equal_nan=True
        )
    if not same:
        raise ModelError(
            f"model: as a graph it gives another {name} than in PyTorch for generated inputs, so nothing was written: "
            "does it do something by the values of its inputs, or draw random numbers?"
        )
