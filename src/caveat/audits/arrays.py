"""Arrays that any framework saved, as observations: an audit without a model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caveat.audits.assess import Observed
from caveat.errors import DataError, known_name
from caveat.heads import HeadLayer
from caveat.mixture import log_mean
from caveat.observations import DRAWS, REFUSED, Observations, normalised
from caveat.tensors import read_npz

__all__ = ["observed", "ood_names"]

KNOWN = ("logits", "labels", "features", "draws", "weight", "bias", "classes")
HINT = ": write it with numpy.savez(path, logits=logits, labels=labels)"
OTHERS = ("logits", "labels", "features", "draws")


def observed(path: str | Path) -> Observed:
    """Read an npz file of the outputs of a network.

    ====================  ============================================================================================
    `logits`, `labels`    of held-out in-distribution data: (n, c) and (n,)
    `draws`               instead of logits, of an ensemble or posterior: (s, n, c); their probabilities are averaged
    `features`            input of the last linear layer (n, d), and its `weight` (c, d) and `bias` (c,)
    `classes`             names of the classes (c,)
    `train/logits` ...    training data: logits, labels, features
    `NAME/logits` ...     an OOD set called NAME: logits, and features if the test data have them
    ====================  ============================================================================================

    Raises
    ------
    DataError
        If the file can't be read, an array is missing, not finite, or its shape does not fit the others.
    """
    path = Path(path)
    arrays, _ = read_npz(path, name="--logits", hint=HINT)
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        group, slash, key = name.rpartition("/")
        if slash and not group:
            raise DataError(f"--logits: {path} holds an array {name!r} of a set without a name: give it one")
        try:
            known_name("--logits", key, OTHERS if slash else KNOWN)
        except ValueError as error:
            raise DataError(f"{error} (in {path})") from None
        groups.setdefault(group, {})[key] = array
    if "" not in groups:
        raise DataError(f"--logits: {path} holds no logits of in-distribution data, only {sorted(groups)}")
    own = groups.pop("")
    form = normalised(torch.from_numpy(own["logits"])) if "logits" in own and own["logits"].ndim == 2 else ""
    if form in REFUSED:
        raise DataError(f"--logits: {path} holds {form} ({REFUSED[form]}); save the logits, or their logarithm")
    known = _observations(own, "")
    head = _head(own, known)
    fit = _observations(groups.pop("train"), "train") if "train" in groups else None
    ood = {name: _observations(group, name, like=known) for name, group in groups.items()}
    several = [name for name, seen in ood.items() if (DRAWS in seen.probed) != (DRAWS in known.probed)]
    if several:
        raise DataError(
            f"--logits: draws are needed of every set or of none: the in-distribution data and {several[0]} differ"
        )
    if known.features is not None and any(seen.features is None for seen in ood.values()):
        raise DataError("--logits: the in-distribution data have features; every OOD set needs them too")
    names = own.get("classes")
    count = known.logits.shape[1]
    classes = tuple(map(str, names if names is not None else range(count)))
    if len(classes) != count:
        raise DataError(f"--logits: expected {count} names in classes, got {len(classes)}")
    sets: Mapping[str, Observations] = {"test": known, **({"train": fit} if fit else {}), **ood}
    return Observed(
        known=known, train=fit, ood=ood, unlabelled={}, generated=frozenset(), head=head, probes={},
        classes=classes, sources={name: (f"{path.name}", list(seen.logits.shape[1:])) for name, seen in sets.items()},
        batches={}, model=(path.stem, 0),
    )  # fmt: skip


def ood_names(path: Path) -> list[str]:
    """Names of the OOD sets of such a file, of which no array is read.

    Raises
    ------
    DataError
        If the file can't be read.
    """
    _, found = read_npz(path, name="--logits", keys=(), hint=HINT)
    return sorted({name.rpartition("/")[0] for name in found} - {"", "train"})


def _observations(group: dict[str, np.ndarray], name: str, like: Observations | None = None) -> Observations:
    probed: dict[str, Tensor] = {}
    if "draws" in group:
        draws = _tensor(group["draws"], name, "draws", 3)
        logits, probed = log_mean(draws), {DRAWS: draws.transpose(0, 1)}
    elif "logits" in group:
        logits = _tensor(group["logits"], name, "logits", 2)
    else:
        raise DataError(f"--logits: {_set(name)} needs logits or draws, got {sorted(group)}")
    if like is not None and logits.shape[1] != like.logits.shape[1]:
        raise DataError(
            f"--logits: {_set(name)} has {logits.shape[1]} classes, the in-distribution data {like.logits.shape[1]}"
        )
    if "labels" in group:
        raw = group["labels"]
        if raw.ndim != 1 or not np.issubdtype(raw.dtype, np.integer):
            raise DataError(
                f"--logits: {_array(name, 'labels')}: expected integers of shape (n,), got {raw.dtype} {raw.shape}"
            )
        labels = torch.from_numpy(raw.astype(np.int64))
    elif like is None:
        raise DataError(f"--logits: {_set(name)} needs labels: give {_array(name, 'labels')}")
    else:
        labels = torch.full((len(logits),), -1)
    features = _tensor(group["features"], name, "features", 2) if "features" in group else None
    for what, count in (("labels", len(labels)), ("features", len(logits if features is None else features))):
        if count != len(logits):
            raise DataError(f"--logits: {_set(name)} has {len(logits)} logits but {count} {what}")
    return Observations(logits, labels, features, probed)


def _head(own: dict[str, np.ndarray], known: Observations) -> HeadLayer | None:
    if "weight" not in own or known.features is None:
        return None
    weight = _tensor(own["weight"], "", "weight", 2)
    bias = _tensor(own["bias"], "", "bias", 1) if "bias" in own else weight.new_zeros(len(weight))
    if weight.shape != (known.logits.shape[1], known.features.shape[1]) or bias.shape != weight.shape[:1]:
        raise DataError(
            f"--logits: expected a weight ({known.logits.shape[1]}, {known.features.shape[1]}) and its bias, got "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    weight, bias = weight.to(known.features.dtype), bias.to(known.features.dtype)
    again = known.features[:100] @ weight.T + bias
    if not torch.allclose(again, known.logits[:100].to(again.dtype), rtol=1e-2, atol=1e-2 * float(again.abs().max())):
        raise DataError("--logits: the logits are not features @ weight.T + bias; leave weight out, or mend it")
    return HeadLayer("weight", False, (weight, bias))


def _set(name: str) -> str:
    return name or "test (the arrays without a prefix)"


def _array(name: str, key: str) -> str:
    """An array as it is called in the file."""
    return f"the array {(f'{name}/{key}' if name else key)!r}"


def _tensor(array: np.ndarray, name: str, key: str, ndim: int) -> Tensor:
    if array.ndim != ndim or not np.issubdtype(array.dtype, np.floating) or not len(array):
        raise DataError(
            f"--logits: {_array(name, key)}: expected floats with {ndim} axes, got {array.dtype} {array.shape}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"--logits: {_array(name, key)} holds NaN or infinity")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))
