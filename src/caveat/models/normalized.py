"""Normalising inside the model, so that whoever attacks or bounds it knows the true box of its inputs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from caveat.errors import DataError, OptionError, known_name

__all__ = ["STATISTICS", "Normalized", "restored", "statistics"]

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of each channel in [0, 1], as most networks trained on a set were given them."""


class Normalized(nn.Module):
    """`model((inputs - mean) / std)`, each channel with its own mean and standard deviation, or all with one.

    Inputs stay in [0, 1] for the caller; `mean` and `std` are buffers and travel with the model.

    Raises
    ------
    OptionError
        If a standard deviation is not positive, or there are not as many of them as means.

    Example
    -------
    >>> Normalized(nn.Identity(), 0.5, 0.25)(torch.tensor([[[[1.0]]]])).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        means, stds = (torch.as_tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1) for values in (mean, std))
        if means.shape != stds.shape:
            raise OptionError(f"std: expected {means.numel()} values, as many as means, got {stds.numel()}")
        if not (means.isfinite().all() and stds.isfinite().all() and (stds > 0).all()):
            raise OptionError(f"std: expected finite means and positive, finite deviations, got {mean} and {std}")
        self.model = model
        self.register_buffer("mean", means)
        self.register_buffer("std", stds)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits.

        Raises
        ------
        DataError
            If the inputs have another number of channels: one would become three without a word.
        """
        channels = self.mean.shape[1]
        if channels > 1 and (inputs.ndim != 4 or inputs.shape[1] != channels):
            raise DataError(
                f"inputs: expected {channels} channels (n, {channels}, h, w), as many as are normalised, got "
                f"{tuple(inputs.shape)}"
            )
        return self.model((inputs - self.mean) / self.std)


def statistics(text: str, *, name: str = "text") -> tuple[Sequence[float], Sequence[float]]:
    """Means and standard deviations by the name of a set, or written `0.5,0.5,0.5/0.25,0.25,0.25`.

    Raises
    ------
    OptionError
        If it is neither; `name` is the option that the error begins with.
    """
    means, slash, stds = text.partition("/")
    if not slash:
        return STATISTICS[known_name(f"{name} (a set, or MEAN,.../STD,...)", text, STATISTICS)]
    try:
        return [float(number) for number in means.split(",")], [float(number) for number in stds.split(",")]
    except ValueError:
        raise OptionError(
            f"{name}: expected numbers MEAN,.../STD,... like 0.5,0.5,0.5/0.25,0.25,0.25, got {text!r}"
        ) from None


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`model`, in a `Normalized` with the numbers of `state` where that was saved from one around such a model."""
    if set(state) != {"mean", "std", *(f"model.{key}" for key in model.state_dict())}:
        return model
    return Normalized(model, state["mean"].flatten().tolist(), state["std"].flatten().tolist())
