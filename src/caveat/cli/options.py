"""Options that several commands share, word for word."""

import typer

__all__ = ["NORMALIZE", "WEIGHTS_KEY"]

WEIGHTS_KEY = typer.Option(None, help="Which weights, if the file holds several that fit, for instance model_ema.")
NORMALIZE = typer.Option(
    None,
    metavar="NAME|MEAN,../STD,..",
    help="Normalise the inputs, which are in [0, 1], as the model was trained with: imagenet, cifar10, cifar100, "
    "mnist, fashion-mnist, clip, or numbers like 0.5,0.5,0.5/0.25,0.25,0.25.",
)
