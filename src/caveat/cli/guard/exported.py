"""`caveat guard run` of what a guard was exported as: no code of its network is needed."""

from pathlib import Path

from caveat.cli.guard import classification, multilabel, regression
from caveat.cli.guard.verdicts import Answering, opened
from caveat.errors import OptionError

__all__ = ["answering", "check", "is_exported"]

TABLES = {
    "classification": classification.table_of,
    "regression": regression.table_of,
    "multilabel": multilabel.table_of,
}
"""From a set to what makes rows of verdicts, by the task of the guard."""


def is_exported(guard: Path) -> bool:
    """Whether a path is that of a graph, and not of a folder."""
    return guard.suffix == ".onnx" and not guard.is_dir()


def check(path: Path, *, model: str | None, device: str, dtype: str | None = None) -> None:
    """Refuse options of a network.

    Raises
    ------
    OptionError
        If one is given.
    """
    for option, given, fine in (
        ("--model", model, [None]), ("--device", device, ["auto", "cpu"]), ("--dtype", dtype, [None, "float32"]),
    ):  # fmt: skip
        if given not in fine:
            raise OptionError(
                f"{option}: {path} is an exported guard, which holds its network and runs on the CPU in float32; leave "
                "the option out"
            )


def answering(
    path: Path, data: str, *, model: str | None, batch: int, seed: int, device: str, dtype: str | None, workers: int
) -> Answering:
    """A verdict for every input, of a guard of any task.

    Raises
    ------
    OptionError
        For options of a network.
    """
    from caveat.guard import onnx_guard

    check(path, model=model, device=device, dtype=dtype)
    guard = onnx_guard.load(path)
    about = guard.about
    source = opened(
        data, shape=about.shape, columns=about.columns, batch=batch, seed=seed, workers=workers,
        several=about.task == "multilabel",
    )  # fmt: skip
    table = TABLES[about.task](source)
    return Answering(guard.digest, "float32", guard, source, table, ["The graph ran in onnxruntime."])
