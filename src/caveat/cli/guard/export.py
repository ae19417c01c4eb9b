"""`caveat guard export`: a guard as one ONNX graph, that runs without Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import output_file
from caveat.cli.terminal import echo

if TYPE_CHECKING:
    from caveat.guard.stored import Operating

NAME = "export"
EXAMPLE = """
import json, numpy, onnxruntime

onnxruntime.set_default_logger_severity(3)  # it warns that the threshold is no constant, as is meant
session = onnxruntime.InferenceSession({name!r})
{names}inputs = numpy.load("inputs.npy").astype("float32")  # {shape}, as the network takes them
names = [output.name for output in session.get_outputs()]
verdict = dict(zip(names, session.run(None, {{"inputs": inputs}})))
{shown}"""
"""What runs a graph, and reads its verdicts."""
NAMES = """classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
"""
SHOWN = {
    "classification": """for label, p in zip(verdict["label"], verdict["p_value"]):
    print("abstained" if label < 0 else classes[label], p)
""",
    "regression": """for lower, upper, accepted in zip(verdict["lower"], verdict["upper"], verdict["accepted"]):
    print(f"{lower:g} to {upper:g}" if accepted else "abstained")
""",
    "multilabel": """for labels, accepted in zip(verdict["labels"], verdict["accepted"]):
    print([name for name, here in zip(classes, labels) if here] if accepted else "abstained")
""",
}
"""Its last lines, by the task of the guard."""


def example(name: str, shape: Sequence[int], task: str) -> str:
    """Lines that run a graph of inputs of this shape, and print its verdicts."""
    sizes = f"(n, {', '.join(map(str, shape))})"
    classes = "" if task == "regression" else NAMES
    found = EXAMPLE.format(name=name, shape=sizes, names=classes, shown=SHOWN[task])
    return found if classes else found.replace("import json, numpy", "import numpy")


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard."),
    output: Path = typer.Option(Path("guard.onnx"), "-o", "--output", help="ONNX file for the graph."),
    model: str | None = typer.Option(
        None, help="The network the guard was made for: package.module:callable or hf:name."
    ),
    triton: Path | None = typer.Option(
        None, metavar="FOLDER", help="Put the graph into this model repository of Triton too, under its own name."
    ),
    mlflow: Path | None = typer.Option(
        None, metavar="FOLDER", help="Write it as a model of MLflow too, which mlflow.pyfunc.load_model reads."
    ),
) -> None:
    """Write network, calibration, score and threshold as one ONNX graph, which onnxruntime runs by itself.

    Of a regression network also the intervals, of one of several labels also the label sets.
    """
    output_file("-o", output, (".onnx",))
    from caveat.cli import model as models
    from caveat.cli.guard.verdicts import named_network
    from caveat.guard import mlflow as flavour
    from caveat.guard import onnx_file
    from caveat.guard import triton as repository
    from caveat.guard.tasks import artefact_of

    onnx_file.check_output("-o", output)
    if triton is not None:
        repository.check_output(triton, output.stem)
    if mlflow is not None:
        flavour.check_output(mlflow)
    home = artefact_of(guard)
    made = home.manifest(guard)
    written = home.load(guard, models.load(named_network(model, made))).export(output)
    echo(_said(output, written, made.operating))
    for line in example(str(output), made.shape, written["task"]).splitlines():
        echo(line)
    echo(_threshold(written["task"]) + (f" Its {written['draws']} draws are fixed." if "draws" in written else ""))
    if triton is not None:
        echo(f"{repository.write(output, triton)} is the same for Triton:  tritonserver --model-repository {triton}")
    if mlflow is not None:
        echo(
            f"{flavour.write(output, mlflow)} is the same for MLflow, without torch:  "
            f"mlflow.pyfunc.load_model({str(mlflow)!r}).predict(inputs)"
        )


def _said(output: Path, written: dict[str, str], held: "Operating") -> str:
    what = {
        "classification": f"calibration ({written.get('calibration')})", "regression": "intervals",
        "multilabel": "temperatures, label sets",
    }[written["task"]]  # fmt: skip
    return (
        f"{output} ({output.stat().st_size / 1e6:.2f} MB) holds network, {what}, score ({written['score']}) and "
        f"threshold ({held.threshold:.6g}, {held.kind} {held.level:g}) in one graph; onnxruntime gave the same "
        "verdicts as PyTorch for generated inputs. It runs without Caveat and without torch:"
    )


def _threshold(task: str) -> str:
    """How another threshold is given, and what does not follow it."""
    of_accepted = {"regression": "intervals", "multilabel": "label sets"}.get(task)
    return (
        "Another threshold needs no other file: session.run(None, {'inputs': inputs, 'threshold': numpy.array(0.5)})."
        if of_accepted is None
        else "Another threshold can be given as  'threshold': numpy.array(0.5)  beside the inputs; the "
        f"{of_accepted} stay those of the guard's own, so that for their promise  caveat guard tune  and a new export "
        "are needed."
    )
