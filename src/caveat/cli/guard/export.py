"""`caveat guard export`: a guard as one ONNX graph, that runs without Python."""

from pathlib import Path

import typer

from caveat.cli.checks import output_file
from caveat.cli.terminal import echo

NAME = "export"
EXAMPLE = """
import json, numpy, onnxruntime

onnxruntime.set_default_logger_severity(3)  # it warns that the threshold is no constant, as is meant
session = onnxruntime.InferenceSession({name!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
inputs = numpy.load("inputs.npy").astype("float32")  # {shape}, as the network takes them
names = [output.name for output in session.get_outputs()]
verdict = dict(zip(names, session.run(None, {{"inputs": inputs}})))
for label, p in zip(verdict["label"], verdict["p_value"]):
    print("abstained" if label < 0 else classes[label], p)
"""
"""What runs a graph, and reads its verdicts."""


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
    """Write network, calibration, score and threshold as one ONNX graph, which onnxruntime runs by itself."""
    output_file("-o", output, (".onnx",))
    from caveat.cli import model as models
    from caveat.cli.guard.verdicts import named_network
    from caveat.errors import OptionError
    from caveat.guard import artefact, onnx_file, stored
    from caveat.guard import mlflow as flavour
    from caveat.guard import triton as repository

    onnx_file.check_output("-o", output)
    if triton is not None:
        repository.check_output(triton, output.stem)
    if mlflow is not None:
        flavour.check_output(mlflow)
    if (task := stored.task_of(guard)) != "classification":
        raise OptionError(f"guard: {guard} is a guard of {task}, and only those of classification can be exported")
    made = artefact.manifest(guard)
    written = artefact.load(guard, models.load(named_network(model, made))).export(output)
    held = made.operating
    echo(
        f"{output} ({output.stat().st_size / 1e6:.2f} MB) holds network, calibration ({made.calibration}), score "
        f"({made.score}) and threshold ({held.threshold:.6g}, {held.kind} {held.level:g}) in one graph; onnxruntime "
        "gave the same verdicts as PyTorch for generated inputs. It runs without Caveat and without torch:"
    )
    for line in EXAMPLE.format(name=str(output), shape=f"(n, {', '.join(map(str, made.shape))})").splitlines():
        echo(line)
    echo(
        "Another threshold needs no other file: session.run(None, {'inputs': inputs, 'threshold': numpy.array(0.5)})."
        + (f" Its {written['draws']} draws are fixed." if "draws" in written else "")
    )
    if triton is not None:
        echo(f"{repository.write(output, triton)} is the same for Triton:  tritonserver --model-repository {triton}")
    if mlflow is not None:
        echo(
            f"{flavour.write(output, mlflow)} is the same for MLflow, without torch:  "
            f"mlflow.pyfunc.load_model({str(mlflow)!r}).predict(inputs)"
        )
