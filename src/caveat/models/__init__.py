"""The networks of the studies. Each is a function with the same options that returns an `nn.Module`."""

from collections.abc import Callable

from torch import nn

from caveat.models.lenet import lenet
from caveat.models.mlp import mlp
from caveat.models.normalized import Normalized
from caveat.models.resnet18 import resnet18
from caveat.models.resnet20 import resnet20
from caveat.models.small_cnn import small_cnn

__all__ = ["MODELS", "Normalized", "lenet", "mlp", "resnet18", "resnet20", "small_cnn"]

# All take `classes`, `channels`, `size` and `generator`, by keyword.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "small_cnn": small_cnn,
}
