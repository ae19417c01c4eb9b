"""A network of another form as a plain classifier: inputs in several parts, logits in a dictionary, one logit."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from caveat import evaluation
from caveat.batches import Inputs, Several
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import moved
from caveat.types import Drawing

__all__ = ["Adapted", "adapted", "restored"]

LOGITS = ("logits", "output", "outputs", "out", "scores")
"""Under which of these names a dictionary holds the logits."""
FEW = 8
"""Inputs that the form of the outputs is looked at on."""
MORE = 256
"""Inputs at most on which one output may lie in [0, 1] before it is taken for a probability."""
TWO = 2


class Adapted(nn.Module):
    """Gives the logits `(n, c)` of a network that returns them among other things, or takes several inputs.

    One logit `z` is two classes with the logits `(0, z)`: their softmax is the sigmoid of `z`.

    Parameters
    ----------
    output
        Key or place of the logits in what the network returns; None if it returns a tensor.
    single
        Whether there is one logit for two classes.
    columns
        Numbers of the logits that are kept, in this order; all by default.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        single: bool = False,
        columns: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.single = single
        self.columns = columns
        evaluation.without_mode(self)

    @property
    def description(self) -> dict[str, Any]:
        """What makes it again from the network."""
        return {"output": self.output, "single": self.single, "columns": self.columns}

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits."""
        made = inputs.call(self.model) if isinstance(inputs, Several) else self.model(inputs)
        logits: Tensor = made if self.output is None else made[self.output]
        if self.columns is not None:
            if max(self.columns) >= logits.shape[1]:
                raise OptionError(f"classes: expected outputs from 0 to {logits.shape[1] - 1}, got {max(self.columns)}")
            return logits[:, list(self.columns)]
        if not self.single:
            return logits
        if logits.ndim == 1:
            logits = logits.unsqueeze(1)
        return torch.cat([torch.zeros_like(logits), logits], dim=1)


def adapted(model: nn.Module, inputs: Inputs, *, name: str = "inputs", several: bool = False) -> nn.Module:
    """`model` itself if it gives logits `(n, c)` of a tensor; else an `Adapted` of the form that it has.

    Costs one forward pass over the first 8 of the `inputs`. With `several`, outputs are logits of several labels, and
    one of them is no two classes.

    Raises
    ------
    ModelError
        If it is open which of its outputs are the logits, or its one output is a probability.
    DataError
        If the network does not take these inputs, those of the set `name`.
    """
    evaluation.check_module(model)
    evaluation.check_initialised(model)  # the pass below would give a lazy layer its weights, by chance
    if isinstance(model, Adapted | Drawing):  # a posterior is made of a network that is adapted already
        return model
    few = inputs[:FEW].clone()
    if isinstance(few, Several):
        _check_keywords(model, few, name)
    few = moved(few, model)
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            made = few.call(model) if isinstance(few, Several) else model(few)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{name}: the model fails on inputs of shape {tuple(few.shape)}: {str(error).splitlines()[0]}"
        ) from error
    output = _place(made, len(few))
    logits = made if output is None else made[output]
    single = not several and (logits.ndim == 1 or (logits.ndim in (2, 4) and logits.shape[1] == 1))
    if single and len(logits) == FEW and _in_unit(logits):
        rest = moved(inputs[:MORE].clone(), model)  # eight logits of an untrained network may lie there by chance
        with torch.inference_mode(mode=False), torch.no_grad():
            again = rest.call(model) if isinstance(rest, Several) else model(rest)
        logits = again if output is None else again[output]
    if single and len(logits) >= FEW and _in_unit(logits):
        raise ModelError(
            "model: its one output lies in [0, 1] for every input: a probability, after a sigmoid, where a logit is "
            "meant; give the network without its last sigmoid"
        )
    if isinstance(inputs, Tensor) and output is None and not single:
        return model
    return Adapted(model, output=output, single=single)


def restored(model: nn.Module, description: Mapping[str, Any] | None) -> nn.Module:
    """The `Adapted` that a description tells of, around a network; the network itself without one."""
    if description is None or isinstance(model, Adapted):
        return model
    output, columns = description.get("output"), description.get("columns")
    return Adapted(
        model, output=output if isinstance(output, str | int) else None, single=bool(description["single"]),
        columns=None if columns is None else tuple(map(int, columns)),
    )  # fmt: skip


def _in_unit(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _place(made: Any, count: int) -> str | int | None:
    """Where in what a network returns the logits are; None if it is a tensor."""
    if isinstance(made, Tensor):
        return None
    if isinstance(made, Mapping):
        named = next((name for name in LOGITS if isinstance(made.get(name), Tensor)), None)
        if named is not None:
            return named
        parts: dict[str | int, Any] = dict(made)
    elif isinstance(made, tuple | list):
        parts = dict(enumerate(made))
    else:
        raise ModelError(
            f"model: expected a tensor of logits (n, c), got {type(made).__name__}; wrap the model in a module whose "
            "forward returns the logits alone"
        )
    fits = [
        key
        for key, part in parts.items()
        if isinstance(part, Tensor) and part.is_floating_point() and part.ndim in (1, TWO) and len(part) == count
    ]
    if len(fits) != 1:
        shapes = ", ".join(
            f"{key}: {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
            for key, part in parts.items()
        )
        raise ModelError(
            f"model: expected logits (n, c), got a {type(made).__name__} ({shapes}), of which "
            f"{'several' if fits else 'none'} could be them; name them 'logits', or wrap the model in a module whose "
            "forward returns the logits alone"
        )
    return fits[0]


def _check_keywords(model: nn.Module, inputs: Several, name: str) -> None:
    if not isinstance(inputs.parts, Mapping):
        return
    taken = inspect.signature(model.forward).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        return
    foreign = [name for name in inputs.parts if name not in taken]
    if foreign:
        raise DataError(
            f"{name}: the batches hold {', '.join(inputs.parts)}, but the model's forward takes {', '.join(taken)}; "
            f"leave out or rename {', '.join(foreign)} (unpack=)"
        )
