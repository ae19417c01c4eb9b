"""The networks of the studies. Each is a function with the same options that returns an `nn.Module`."""

from collections.abc import Callable

from torch import nn

from caveat.models.adapter import Adapted, adapted
from caveat.models.columns import Columns, as_columns
from caveat.models.denoising_classifier import denoising_classifier
from caveat.models.enet import enet
from caveat.models.gradient_cnn import gradient_cnn
from caveat.models.hub import LogitsOnly, Tokenized
from caveat.models.lenet import lenet
from caveat.models.mlp import mlp
from caveat.models.normalized import Normalized
from caveat.models.pspnet import pspnet
from caveat.models.regressor import regressor
from caveat.models.resnet18 import resnet18
from caveat.models.resnet20 import resnet20
from caveat.models.small_cnn import small_cnn
from caveat.models.standardized import Standardized
from caveat.models.subset import chosen, class_names_of
from caveat.models.text_classifier import text_classifier
from caveat.models.tradi_mlp import tradi_mlp
from caveat.models.with_autoencoder import WithAutoencoder

__all__ = [
    "DENSE",
    "JOINT",
    "MODELS",
    "OF_TEXTS",
    "Adapted",
    "Columns",
    "Normalized",
    "Standardized",
    "WithAutoencoder",
    "adapted",
    "as_columns",
    "chosen",
    "class_names_of",
    "denoising_classifier",
    "enet",
    "gradient_cnn",
    "lenet",
    "mlp",
    "named",
    "pspnet",
    "regressor",
    "resnet18",
    "resnet20",
    "small_cnn",
    "text_classifier",
    "title",
    "tradi_mlp",
]

# All take `classes`, `channels`, `size` and `generator`, by keyword.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "gradient_cnn": gradient_cnn,
    "lenet": lenet,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "small_cnn": small_cnn,
    "tradi_mlp": tradi_mlp,
}

# All take `classes`, `channels` and `generator`, by keyword, and give logits for every pixel.
DENSE: dict[str, Callable[..., nn.Module]] = {"enet": enet, "pspnet": pspnet}

# As `MODELS`, and they reconstruct their inputs too.
JOINT: dict[str, Callable[..., nn.Module]] = {"denoising_classifier": denoising_classifier}

# All take `classes` and `generator`, by keyword, and have `encode`.
OF_TEXTS: dict[str, Callable[..., nn.Module]] = {"text_classifier": text_classifier}


def title(model: nn.Module) -> str:
    """What to call a network: its class, or that of the one that a wrapper is around; or as it is `called`."""
    while (inner := _within(model)) is not None:
        model = inner
    averaged, inner = getattr(model, "averaged", None), getattr(model, "model", None)
    if isinstance(averaged, str) and isinstance(inner, nn.Module):  # a posterior; a user's attribute may be anything
        return f"{title(inner)} ({averaged})"
    called = getattr(model, "called", None) if type(model) is nn.Sequential else None
    return called if isinstance(called, str) else type(model).__name__


def named(model: nn.Module, builder: str) -> nn.Module:
    """The network, called like the function that built it where its class, `nn.Sequential`, says nothing of it."""
    if type(model) is nn.Sequential:
        setattr(model, "called", builder)  # noqa: B010  # pyright knows no attribute of modules but tensors
    return model


def _within(model: nn.Module) -> nn.Module | None:
    """What a wrapper, of ours or of torch (DataParallel, torch.compile), is around."""
    if isinstance(model, Adapted | Normalized | LogitsOnly | Tokenized):
        return model.model
    return getattr(model, "_orig_mod", None) or (model.module if isinstance(model, nn.DataParallel) else None)
