"""What an audit of a task of its own begins with: its sets and its network, from the options of `caveat audit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caveat.cli.checks import clash, existing
from caveat.cli.options import Asked
from caveat.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from caveat.data import Numbers, Set, Source

__all__ = ["UNUSED", "Prepared", "prepared"]

UNUSED = {
    "logits", "unlabelled", "outliers", "score", "calibration", "classes", "head", "features", "attack_radius",
    "attack_norm",
    "attack_samples", "attack_certify", "attack_smallest", "attack_transform", "replicas", "fail_if", "junit",
}  # fmt: skip
"""Options of `caveat audit` that are for classifiers."""
SHARE = 0.5
"""Of the test set, for calibration, unless another is asked for."""


@dataclass(frozen=True)
class Prepared:
    """A network and its sets."""

    network: "nn.Module"
    test: "Source | Numbers"
    train: "Source | Numbers | None"
    ood: "Mapping[str, Source | Numbers]"
    told: list[str]
    """What is to be said of the weights."""
    share: float
    """Of the test set, for calibration."""


def prepared(
    options: dict[str, Any],
    given: set[str],
    *,
    task: str,
    unused: set[str],
    labelled: "Callable[[Set, str], Source | Numbers]",
    numeric: "Callable[[Set, str], Source | Numbers]",
) -> Prepared:
    """Read the sets and load the network; of the options, `given` are not their defaults.

    `unused` are those of other tasks; `labelled` refuses test and training sets that are no sets of the task, `numeric`
    any other set.

    Raises
    ------
    OptionError, DataError, ModelError
        If an option does not fit the task, or a set or the network can't be read.
    """
    clash(f"--task {task}", given & UNUSED, "these options are for classifiers")
    clash(f"--task {task}", given & unused, "these options are for other tasks")
    if options["model"] is None or options["test"] is None:
        raise OptionError("--model, --test: both are needed")
    existing("--weights", options["weights"])
    existing("--posterior", options["posterior"])
    from caveat import devices
    from caveat.cli import model as models
    from caveat.cli.audit import named
    from caveat.data import read

    devices.check(options["device"], options["dtype"])
    seed, several = options["seed"], task == "multilabel"

    def opened(spec: str, like: "Set | None" = None) -> "Set":
        return read(spec, batch=options["batch"], seed=seed, like=like, workers=options["workers"], several=several)

    known = labelled(opened(options["test"]), "--test")
    others = {name: numeric(opened(spec, known), "--ood") for name, spec in map(named, options["ood"])}
    if len(others) < len(options["ood"]):
        raise OptionError("--ood: expected every name once")
    train = options["train"]
    training = None if train is None else labelled(opened(train, known), "--train")
    told: list[str] = []
    bare = models.load(
        options["model"], options["weights"], key=options["weights_key"], normalize=options["normalize"],
        say=told.append,
    )  # fmt: skip
    network = models.posterior(
        bare, options["posterior"], dropout=options["dropout"], draws=options["draws"], seed=seed, training=training
    )
    share = options["calibration_share"] if isinstance(options["calibration_share"], Asked) else SHARE
    return Prepared(network, known, training, others, told, share)
