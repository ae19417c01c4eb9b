"""Options that several commands share, word for word."""

import typer

__all__ = ["DEVICE", "DTYPE", "NORMALIZE", "WEIGHTS_KEY", "WORKERS"]


WEIGHTS_KEY = typer.Option(None, help="Which weights, if the file holds several that fit, for instance model_ema.")
NORMALIZE = typer.Option(
    None,
    metavar="NAME|MEAN,../STD,..",
    help="Normalise the inputs, which are in [0, 1], as the model was trained with: imagenet, cifar10, cifar100, "
    "mnist, fashion-mnist, clip, or numbers like 0.5,0.5,0.5/0.25,0.25,0.25.",
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
