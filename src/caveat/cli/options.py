"""Options that several commands share, word for word."""

from typing import no_type_check

import typer

__all__ = [
    "DEVICE",
    "DTYPE",
    "ERROR",
    "LEVELS",
    "NORMALIZE",
    "OUTPUTS",
    "TASKS",
    "THRESHOLD",
    "TRANSFORM",
    "WEIGHTS_KEY",
    "WORKERS",
    "Asked",
    "asked",
]


class Asked(float):
    """A number that stands on the command line: it may equal a default, and is none."""


@no_type_check  # typer tells by the annotation what to give, and gives an object of another class
def asked(context: typer.Context, value: float) -> float:
    """Mark the value of `--calibration-share`, whose default depends on the task."""
    source = context.get_parameter_source("calibration_share")
    return Asked(value) if source is not None and source.name == "COMMANDLINE" else value


TASKS = ("classification", "regression", "multilabel")

WEIGHTS_KEY = typer.Option(None, help="Which weights, if the file holds several that fit, for instance model_ema.")
NORMALIZE = typer.Option(
    None,
    metavar="NAME|MEAN,../STD,..",
    help="Normalise the inputs, which are in [0, 1], as the model was trained with: imagenet, cifar10, cifar100, "
    "mnist, fashion-mnist, clip, or numbers like 0.5,0.5,0.5/0.25,0.25,0.25.",
)
TRANSFORM = (
    "rotate=30 (degrees), translate=2 or right=, down= (pixels), scale=0.1, shear=0.1, contrast=0.1, brightness=0.1, "
    "each -x to x or least:largest. Given several times they act together."
)
DEVICE = typer.Option(
    "auto",
    help="Where the network runs: auto (CUDA if there is one, else MPS, else the CPU), cpu, cuda, cuda:1, mps.",
)
DTYPE = typer.Option(
    "float32",
    help="Precision in which the network runs: float32, or under autocast bfloat16 or float16. Whatever is computed "
    "from its outputs is in float32 at least.",
)
WORKERS = typer.Option(
    0, min=0, max=64, help="Threads that decode pictures ahead of the network; 0 decodes them between its batches."
)
OUTPUTS = typer.Option(
    None,
    metavar="FORM",
    help="Of regression, what the outputs mean: point, gaussian (mean and log variance), gaussian_variance, "
    "gaussian_std, mixture, evidential, quantiles or samples; by default point, if there is one.",
)
LEVELS = typer.Option(
    None, metavar="A,B,..", help="Of regression, the levels of the quantiles; by default 0.05,0.5,0.95."
)
ERROR = typer.Option(
    0.1,
    help="Of regression, the share of labels that an interval may miss; of multilabel, the share of an input's labels "
    "that may be missed, in expectation.",
)
THRESHOLD = typer.Option(
    0.5, help="Of multilabel, the probability from which on a label counts as predicted in F1, accuracy and the like."
)
