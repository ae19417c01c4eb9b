"""From the text of `--model` to a network in evaluation mode."""

import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from caveat.errors import DataError, MissingExtraError, ModelError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from caveat.data import Bound

__all__ = ["load", "posterior"]

OPTIONAL = ("triton",)
"""Libraries that torch looks for: a folder of that name, with what an export wrote, must not be taken for one."""


def load(
    spec: str,
    weights: Path | None = None,
    *,
    key: str | None = None,
    normalize: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
    warn: bool = False,
) -> "nn.Module":
    """Build the network that `spec` names, load its weights, and put it in evaluation mode.

    `package.module:callable` runs that code of yours, of the working directory if no library has that name;
    `package.module:callable(classes=9)` passes literal arguments; torch's global state is seeded with `seed` while it
    runs, and a parameter `generator` is given one seeded with it. `hf:org/name` or `hf:folder` is a
    classifier of images or texts of transformers (extra `hf`), its normalisation or tokenizer included; `timm:name` one
    of timm, where that is installed, with its normalisation, and its own weights unless others are given. `normalize`
    (`models.normalized.statistics`) is put in front of a network that has none; weights that were saved with it bring
    their own. `say` is told what was done to make the weights fit (`weights.load`), and with `warn` that
    they are random, where none are given: your code is run once more to find out.

    Raises
    ------
    ModelError
        If the module or the callable can't be used, or the weights don't fit.
    DataError
        If the weights can't be read.
    OptionError
        If `normalize` cannot be read, or the network normalises already.
    """
    from caveat.models import normalized
    from caveat.models.restore import restored
    from caveat.types import Encoding

    if spec.endswith((".pt2", ".pt", ".pth", ".pkl")):
        raise ModelError(
            f"--model: {spec} may run code when it is loaded; name the function that builds the network "
            "(package.module:callable) and give its weights as safetensors (--weights)"
        )
    numbers = None if normalize is None else normalized.statistics(normalize, name="--normalize")
    if weights is None and key is not None:
        raise OptionError("--weights-key: expected --weights beside it")
    if spec.startswith("hf:"):
        model = _from_hub(spec[3:])
    elif spec.startswith("timm:"):
        model = _from_timm(spec[5:], pretrained=weights is None)
    else:
        model = _from_code(spec, seed)
        if warn and weights is None and _drawn(model, _from_code(spec, seed + 1)):
            say(
                f"Warning: no --weights are given, and those that {spec} makes are random: what is said here holds for "
                "them, and not for a trained network."
            )
    if weights is not None:
        from caveat import weights as files

        state = files.read(weights, name="--weights").get("", {})
        model = restored(model, state)
        for note in files.load(model, weights, key=key, name="--weights"):
            say(note)
    if numbers is not None:
        if isinstance(model, Encoding):
            raise OptionError("--normalize: the network takes texts, which have no mean; leave it out")
        if isinstance(model, normalized.Normalized):
            raise OptionError("--normalize: the network normalises its inputs already; leave it out")
        model = normalized.Normalized(model, *numbers)
    from caveat.evaluation import to_eval

    return to_eval(model)


def _drawn(model: "nn.Module", other: "nn.Module") -> bool:
    """Whether the weights of a network are random: made again with another seed, it has others."""
    import torch

    one, two = model.state_dict(), other.state_dict()
    return one.keys() != two.keys() or any(
        isinstance(each, torch.Tensor) and not (each.shape == two[name].shape and torch.equal(each, two[name]))
        for name, each in one.items()
    )


def posterior(
    model: "nn.Module",
    path: Path | None,
    *,
    dropout: bool,
    draws: int | None,
    seed: int,
    training: "Bound | None",
) -> "nn.Module":
    """The model with the posterior in a file, or with its dropout on, as one network; as it is without either.

    Raises
    ------
    OptionError
        If both are asked for, or sampled weights need batch-norm statistics and there are no training data to renew
        them.
    DataError
        If the file is no posterior.
    """
    if path is None and not dropout:
        if draws is not None:
            raise OptionError("--draws: expected --posterior or --dropout beside it")
        return model
    if path is not None and dropout:
        raise OptionError("--dropout: expected it or --posterior, got both")
    import torch

    from caveat import posteriors

    try:
        found = posteriors.dropout.of(model) if path is None else posteriors.load(path)
    except DataError as error:
        raise DataError(f"--posterior: {str(error).removeprefix('path: ')}") from None
    if not isinstance(found, posteriors.Ensemble | posteriors.Dropout):
        generator = torch.Generator().manual_seed(seed)
        count = 20 if draws is None else draws
        found = posteriors.sample(found, model, draws=count, generator=generator, batches=training)
    return posteriors.Predictive(model, found, draws=draws, seed=seed)


def _from_code(spec: str, seed: int) -> "nn.Module":
    import torch
    from torch import nn

    module_name, _, call = spec.partition(":")
    if not call:
        raise ModelError(f"--model: expected package.module:callable, hf:name or timm:name, got {spec!r}")
    _let_find(module_name)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's own code
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        hint = ""
        if module_name.endswith(".py"):
            hint = f"; leave out .py: {module_name.removesuffix('.py').replace('/', '.')}:{call}"
        elif isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            hint = "; modules are looked for among the installed ones and in the working directory"
        raise ModelError(f"--model: cannot import {module_name!r} ({why}){hint}") from error
    from caveat.training.randomness import seeded
    from caveat.training.recipe import named_call

    name, options = named_call(call, "--model")
    factory = getattr(module, name, None)
    if not callable(factory):
        from caveat.errors import known_name

        if not hasattr(module, name):
            known_name(f"--model: {module_name}", name, _callables(module))
        raise ModelError(f"--model: {module_name}:{name} is not callable")
    try:
        if "generator" in inspect.signature(factory).parameters:
            options["generator"] = torch.Generator().manual_seed(seed)
        with seeded(seed):  # layers draw their first weights from torch's global state
            model = factory(**options)
    except (Exception, SystemExit) as error:  # the user's own code; sys:exit would leave with the code of a success
        raise ModelError(f"--model: {spec} fails: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"--model: {spec} must return an nn.Module, got {type(model).__name__}")
    from caveat import models

    return models.named(model, name)


def _let_find(module: str) -> None:
    """Let a module of the working directory be found, after all libraries, if it is found nowhere else.

    Before them, a folder's altair.py or scipy.py would run in their place, also for a network of ours.
    """
    top = module.partition(".")[0]
    if top in sys.modules or "" in sys.path:
        return
    try:
        found = find_spec(top)
    except ValueError:  # an empty name
        return
    if found is None or found.origin is None:  # nowhere, or a folder without __init__.py
        for name in OPTIONAL:
            if name != top and name not in sys.modules and find_spec(name) is None:
                sys.modules[name] = None  # pyright: ignore[reportArgumentType]  # an import of it fails, as without us
        sys.path.append("")


def _callables(module: ModuleType) -> list[str]:
    """What may build a network: functions and classes of the module, also of its package, not what it imports."""
    package = module.__name__.partition(".")[0]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and (getattr(value, "__module__", None) or "").partition(".")[0] == package
    ]


def _from_timm(name: str, *, pretrained: bool) -> "nn.Module":
    """A network of timm with the normalisation that its weights were trained with."""
    try:
        import timm  # pyright: ignore[reportMissingImports]  # of the user's own
    except ImportError:
        raise ModelError(
            f"--model: timm:{name} needs the package timm, which Caveat does not bring: pip install timm"
        ) from None
    from caveat.models.normalized import Normalized

    try:
        network = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # whatever the network, the hub and timm may raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"--model: cannot make timm:{name} ({reason})") from error
    settings: dict[str, Any] = dict(getattr(network, "pretrained_cfg", None) or {})
    if "mean" not in settings or "std" not in settings:
        return network
    return Normalized(network, settings["mean"], settings["std"])


def _from_hub(name: str) -> "nn.Module":
    try:
        import transformers  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise MissingExtraError("transformers", "hf", f"--model hf:{name}") from None
    from caveat.models.hub import LogitsOnly, prepared, tokenized

    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        texts = any(str(each).endswith("ForSequenceClassification") for each in config.architectures or ())
        kind = (
            transformers.AutoModelForSequenceClassification if texts else transformers.AutoModelForImageClassification
        )
        network = kind.from_pretrained(name, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False) if texts else None
    except (OSError, ValueError) as error:
        raise ModelError(f"--model: cannot load hf:{name} ({str(error).splitlines()[0]})") from error
    if tokenizer is not None:
        return tokenized(network, tokenizer)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        return LogitsOnly(network)  # the checkpoint says nothing of how pictures are prepared
    return prepared(network, processor)
