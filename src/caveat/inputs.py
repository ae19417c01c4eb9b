"""Sets of inputs as they come from the user's world: looked at once where they enter, and known again later."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from caveat.batches import Inputs, Several, Target, View, pair, stacked, viewed
from caveat.errors import DataError
from caveat.precision import all_finite
from caveat.types import Batches

__all__ = [
    "OTHER_UNITS",
    "Opened",
    "check",
    "check_labels",
    "check_same_classes",
    "check_same_shapes",
    "check_same_units",
    "class_names",
    "fingerprints",
    "largest",
    "moved",
    "opened",
    "remarks",
    "sampled",
    "take",
]

OPTION_SAMPLES = 512
"""As many inputs at most as options of a score are chosen on."""

OTHER_UNITS = 50
"""So many times larger, inputs are in other units: bytes are 255 times numbers in [0, 1]; pictures differ by less."""

_WIDTHS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 20
"""Numbers that are hashed at a time: what is widened to 64 bits stays in the processor's cache."""


@dataclass(frozen=True)
class Opened:
    """A set that was looked at: it can be gone through again, and its first batch is what it should be."""

    name: str
    """What messages call it."""
    batches: Batches
    first: tuple[Inputs, Tensor]
    """Inputs and labels of the first batch."""
    shape: tuple[int, ...]
    """Of one input; empty where it varies (whole numbers, such as tokens) or inputs have several parts."""
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., where the set knows them."""
    source: str
    """Where it is from, for people."""
    generated: bool
    """Noise and the like."""


def opened(batches: Any, name: str, unpack: Callable[[Any], Any] | None = None, *, target: Target = "class") -> Opened:
    """Look at the first batch of a set, in whatever form its batches are (`batches.viewed`).

    `target` says what labels are.

    Raises
    ------
    DataError
        If the set can be gone through only once, is empty, or its batches are not of inputs and labels.
    """
    batches = viewed(batches, name, unpack, target=target)
    if isinstance(batches, View) and batches.used_up:
        raise DataError(
            f"{name}: expected a set that can be gone through again and again, as a DataLoader or a list of batches, "
            f"got a {batches.used_up} that is used up after one pass: give list(...) of it"
        )
    first: Any = next(iter(batches), None)
    if first is None:
        raise DataError(f"{name}: expected at least one batch of inputs, got an empty set")
    inputs, labels = check(first, name, target=target)
    classes = getattr(batches, "classes", None)
    own = getattr(batches, "shape", None)
    fixed = isinstance(inputs, Tensor) and (inputs.is_floating_point() or inputs.ndim > 2)  # tokens
    return Opened(
        name=name,
        batches=batches,
        first=(inputs, labels),
        shape=(tuple(inputs.shape[1:]) if fixed else ()) if own is None else tuple(own),
        classes=None if classes is None else tuple(map(str, classes)),
        source=str(getattr(batches, "name", getattr(batches, "kind", type(batches).__name__))),
        generated=bool(getattr(batches, "generated", False)),
    )


def check(batch: Any, name: str, *, target: Target = "class") -> tuple[Inputs, Tensor]:
    """The inputs and labels of a batch of any form; refuse one that can't be right.

    Raises
    ------
    DataError
        If it holds no inputs, not one label for each, labels are not what `target` says, or inputs are NaN or
        infinite.
    """
    inputs, labels = pair(batch, name, target=target)
    single = isinstance(inputs, Tensor)
    if (single and not inputs.ndim) or not labels.ndim or len(inputs) != len(labels):
        raise DataError(
            f"{name}: expected one label per input, got inputs of shape {tuple(inputs.shape)} and labels of shape "
            f"{tuple(labels.shape)}"
        )
    if target == "number":
        _check_real(labels, name)
    elif target == "several":
        _check_several(labels, name)
    elif labels.ndim == 2:
        raise DataError(
            f"{name}: expected labels (n,) of whole numbers, got {tuple(labels.shape)}: of one-hot labels take "
            "argmax(dim=1); a network of several labels for each input is audited by audits.audit_multilabel (caveat "
            "audit --task multilabel)"
        )
    elif labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(
            f"{name}: expected integer labels, got {labels.dtype}: labels.long() if they are whole numbers; real ones "
            "are for audit_regression (--task regression)"
        )
    for part in [inputs] if single else inputs.tensors:
        if part.is_floating_point() and not all_finite(part):
            bad = int((~torch.isfinite(part.reshape(len(part), -1))).any(dim=1).nonzero()[0])
            raise DataError(f"{name}: expected finite inputs, got NaN or infinity in sample {bad} of its batch")
    return inputs, labels


def _check_real(labels: Tensor, name: str) -> None:
    if labels.ndim > 1:
        raise DataError(
            f"{name}: expected one number (n,) as the label of each input, got {tuple(labels.shape)}; audit a network "
            "for each column"
        )
    if bool(labels.isinf().any()) or bool(labels.isnan().any() & ~labels.isnan().all()):
        raise DataError(f"{name}: expected finite labels, got NaN or infinity in some; leave these samples out")


def _check_several(labels: Tensor, name: str) -> None:
    if labels.ndim != 2 or labels.shape[1] == 1:
        raise DataError(
            f"{name}: expected labels (n, c) of 0 and 1, one column for each of at least two labels, got "
            f"{tuple(labels.shape)}; a network of one label for each input is a classifier"
        )
    bad = (~((labels == 0) | (labels == 1))).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{name}: expected labels of 0 and 1, got {float(labels[row, column]):g} for label {column} of sample "
            f"{row} of its batch; leave out samples of which a label is missing"
        )


def check_same_classes(test: Opened, train: Opened | None) -> None:
    """Labels are positions in a list of classes: two sets that count differently would shift them without a word.

    Raises
    ------
    DataError
        If both sets name their classes, and the names or their order differ.
    """
    if train is None or test.classes is None or train.classes is None or test.classes == train.classes:
        return
    missing = sorted(set(train.classes) - set(test.classes))
    more = sorted(set(test.classes) - set(train.classes))
    raise DataError(
        f"{train.name}: its classes are not those of {test.name}, so that labels would mean different classes: "
        f"{test.name} lacks {', '.join(missing[:5]) or 'none'}, {train.name} lacks {', '.join(more[:5]) or 'none'}"
        + ("" if missing or more else ", but the order differs")
        + "; give both the same class folders in the same order (an empty folder counts)"
    )


def check_same_shapes(sets: Mapping[str, Opened]) -> None:
    """Refuse sets of which one has inputs of another shape than the test set.

    Raises
    ------
    DataError
        If there is one.
    """
    expected = sets["test"].shape
    for name, one in sets.items():
        if one.shape != expected:
            if len(expected) != 3:
                raise DataError(f"{name}: expected inputs of shape {expected} as in test, got {one.shape}")
            raise DataError(
                f"{name}: expected inputs of shape {expected} as in test, got {one.shape}; bring them to one size and "
                f"number of channels, on the command line with +{'x'.join(map(str, expected[-2:]))} and "
                f"{'+grey' if expected[:1] == (1,) else '+rgb'}"
            )


def check_same_units(test: Opened, train: Opened | None) -> None:
    """Two in-distribution sets of which one is in bytes and one in [0, 1] would fit every score to the units.

    Raises
    ------
    DataError
        If they hold other kinds of numbers, or one is 50 times as large.
    """
    if train is not None and (text := _other_units(test, train)):
        raise DataError(f"{train.name}: {text}: bring both to one unit, as with inputs.float() / 255")


def remarks(sets: Mapping[str, Opened]) -> list[str]:
    """What a person should know of the sets after a pass: what was left out, and OOD inputs in other units.

    Those are told apart by their units alone.
    """
    test = sets["test"]
    own = [text for one in sets.values() for text in getattr(one.batches, "remarks", ())]
    return own + [
        f"The set {name} may be in other units: {text}. Then every score tells units apart, not contents"
        for name, one in sets.items()
        if not one.generated and (text := _other_units(test, one))
    ]


def _other_units(one: Opened, other: Opened) -> str:
    """What differs between the numbers of two sets, as their first batches have them; empty if nothing does."""
    a, b = one.first[0], other.first[0]
    if isinstance(a, Several) or isinstance(b, Several):
        return ""
    sizes = [(float(x.double().abs().mean()), float(x.double().abs().max())) for x in (a, b)]
    ratios = [max(x, y) / min(x, y) if min(x, y) > 0 else 1.0 for x, y in zip(*sizes, strict=True)]
    if a.is_floating_point() == b.is_floating_point() and min(ratios) < OTHER_UNITS:
        return ""
    return " and ".join(
        f"{each.name} holds {str(x.dtype).removeprefix('torch.')} from {float(x.min()):.4g} to {float(x.max()):.4g}"
        for each, x in ((one, a), (other, b))
    )


def largest(*sets: Opened) -> float | None:
    """The largest absolute value in the first batches of sets of floating numbers; None for whole numbers."""
    found = [one.first[0] for one in sets]
    numbers = [part for part in found if isinstance(part, Tensor) and part.is_floating_point()]
    return max(float(part.abs().max()) for part in numbers) or None if len(numbers) == len(found) else None


def check_labels(labels: Tensor, logits: Tensor, name: str) -> None:
    """Refuse labels that are no class of the model.

    Raises
    ------
    DataError
        If the logits are not `(n, c)`, or a label is not in [0, c).
    """
    if logits.ndim != 2:
        raise DataError(
            f"{name}: expected a classifier's logits (n, c), got {tuple(logits.shape)}; a segmentation network is "
            "audited by audits.audit_dense (caveat audit-pixels)"
        )
    if bool((labels == -1).all()):
        raise DataError(
            f"{name}: its samples have no labels (-1): a folder of pictures needs one subfolder a class, an npz file "
            "an array labels, and batches are (inputs, labels)"
        )
    classes = logits.shape[1]
    bad = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{name}: expected labels in [0, {classes - 1}] as the model has {classes} classes, got "
            f"{int(labels[bad[0]])} at sample {int(bad[0])} ({len(bad)} of {len(labels)} are out of range)"
        )


def class_names(test: Opened, count: int) -> tuple[str, ...]:
    """The names of a model's `count` classes, as the set has them; their numbers where it has none.

    Raises
    ------
    DataError
        If the set names fewer classes than the model has outputs.
    """
    if test.classes is None:
        return tuple(map(str, range(count)))
    if len(test.classes) < count:  # more is no shift while no label is out of range: the last ones were left out
        raise DataError(
            f"{test.name}: it names {len(test.classes)} classes ({', '.join(test.classes[:5])}, ...), but the model "
            f"has {count} outputs: labels, which count the set's classes, may mean other classes than the model's. "
            f"Give a set with all {count} classes in the model's order (an empty folder counts as a class)"
        )
    return test.classes[:count]


def fingerprints(inputs: Inputs) -> Int64[Tensor, " n"]:
    """A 64-bit hash of the bits of every input `(n, ...)`, whatever batch it is in.

    The bits as whole numbers, each times an odd constant of its place, summed modulo 2^64: inputs that differ in one
    number never collide, others by chance of about 2^-64. It tells whether inputs read again are those observed; it is
    no protection against somebody who makes them collide. Cost: two passes over the inputs, some percent of a small
    network's.
    """
    if isinstance(inputs, Several):  # each part counts by its place, so that two that are swapped are another input
        return torch.stack([fingerprints(part) * (2 * place + 1) for place, part in enumerate(inputs.tensors)]).sum(0)
    flat = inputs.detach().cpu().contiguous()
    flat = flat.flatten(1) if flat.ndim > 1 else flat.unsqueeze(1)
    if flat.dtype == torch.bool or flat.is_complex():
        flat = flat.to(torch.uint8) if flat.dtype == torch.bool else torch.view_as_real(flat).flatten(1)
    bits = flat.view(_WIDTHS[flat.element_size()])
    place = torch.arange(bits.shape[1], dtype=torch.int64, device=bits.device)
    # multiplicative hashing (Knuth): odd multiples of a constant, mixed so that neighbouring places are unlike
    weight = (place * 0x9E3779B97F4A7C1 ^ (place + 1) * 0x5851F42D4C957F2D) | 1
    rows = max(1, _CHUNK // max(1, bits.shape[1]))
    return torch.cat([(part.to(torch.int64) * weight).sum(dim=1) for part in bits.split(rows)])


def take(batches: Batches, wanted: Int64[Tensor, " k"], prints: Int64[Tensor, " n"], name: str) -> Inputs:
    """The inputs at the positions `wanted` of a set whose inputs had the fingerprints `prints` when they were observed.

    Read again through the set itself, so that what its loader does to samples is done; found by their fingerprints,
    so that a loader that shuffles gives the right ones too.

    Raises
    ------
    DataError
        If the set no longer gives these inputs: it draws augmentations anew, or was changed.
    """
    keys = prints[wanted].tolist()
    batches = viewed(batches, name)
    own = getattr(batches, "take", None)
    if own is not None and len(wanted):
        inputs = own(wanted)[0]
        if fingerprints(inputs).tolist() == keys:
            return inputs
    missing, found = set(keys), {}
    for inputs, _ in batches if own is None else ():
        if not missing:
            break
        for row, key in enumerate(fingerprints(inputs).tolist()):
            if key in missing:
                found[key] = inputs[row].clone()
                missing.discard(key)
    if own is not None or missing:
        raise DataError(
            f"{name}: inputs read again are not those that were observed (random augmentation, or files that changed "
            "meanwhile); give a set that is the same in every pass"
        )
    return stacked([found[key] for key in keys])


def sampled(one: Opened, rows: Callable[[int], Tensor]) -> tuple[Inputs, Tensor]:
    """Inputs and labels of at most 512 samples; `rows` gives their positions from the number of samples in the set.

    Raises
    ------
    DataError
        As `take`.
    """
    parts = [(labels, fingerprints(inputs)) for inputs, labels in one.batches]
    labels, prints = (torch.cat(part) for part in zip(*parts, strict=True))
    wanted = rows(len(labels))[:OPTION_SAMPLES]
    return take(one.batches, wanted, prints, one.name), labels[wanted]


@overload
def moved(inputs: Tensor, model: nn.Module) -> Tensor: ...
@overload
def moved(inputs: Several, model: nn.Module) -> Several: ...
@overload
def moved(inputs: Inputs, model: nn.Module) -> Inputs: ...
def moved(inputs: Inputs, model: nn.Module) -> Inputs:
    """The inputs on the model's device, and of its dtype where both are floats: tokens stay whole numbers."""
    anchor = next(model.parameters(), None)
    if anchor is None:
        return inputs
    if isinstance(inputs, Several):
        return inputs.each(lambda part: moved(part, model))
    floats = inputs.is_floating_point() and anchor.is_floating_point()
    return inputs.to(anchor.device, anchor.dtype if floats else None, non_blocking=True)
