"""Accuracy under attack: how small a change of the input is enough to change a right answer."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from caveat.attacks import Ball, masked, pgd, without_gradient
from caveat.attacks.network import answered, check_floating
from caveat.attacks.strongest import warnings_of
from caveat.audits.certified import Method, proved
from caveat.audits.pictures import mistake
from caveat.audits.smallest import smallest
from caveat.batches import Inputs, Several
from caveat.errors import DataError, OptionError
from caveat.inputs import moved, take
from caveat.metrics.interval import interval_of_share
from caveat.records.attack import Attacked, AttackedPicture, AttackedRadius
from caveat.types import Batches

__all__ = ["attacked", "boxed", "check", "drawn", "gradient_note", "right"]

NORMS: dict[float, Literal["1", "2", "inf"]] = {1: "1", 2: "2", math.inf: "inf"}


def check(radii: Sequence[float], nearest: int) -> list[float]:
    """The radii in ascending order.

    Raises
    ------
    OptionError
        If a radius is not positive or there are none, or the number of smallest perturbations is negative.
    """
    ascending = sorted({float(radius) for radius in radii})
    if not ascending or not 0 < ascending[0] <= ascending[-1] < math.inf:
        raise OptionError(f"attack_radii: expected positive, finite radii, got {ascending}")
    if nearest < 0:
        raise OptionError(f"attack_smallest: expected at least 0, got {nearest}")
    return ascending


def boxed(first: Inputs, *, option: str) -> None:
    """Refuse a first batch outside of [0, 1], which attacks stay in, before any work.

    Raises
    ------
    OptionError
        If it is, or inputs are not one tensor.
    DataError
        If they are whole numbers.
    """
    inputs = _one(first, option)
    check_floating(inputs)
    try:
        Ball(math.inf, 0.0, 0.0, 1.0).check(inputs)
    except DataError:
        raise OptionError(
            f"{option}: expected inputs in [0, 1], got {float(inputs.min()):.4g} to {float(inputs.max()):.4g}; put "
            "what scales them into the model (caveat.models.Normalized)"
        ) from None


def _one(inputs: Inputs, option: str) -> Tensor:
    if isinstance(inputs, Several):
        raise OptionError(f"{option}: expected inputs of one tensor, which a radius can be around, got several parts")
    return inputs


def attacked(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    batches: Batches,
    rows: Tensor,
    labels: Tensor,
    prints: Tensor,
    *,
    radii: Sequence[float],
    generator: torch.Generator,
    norm: int | float = math.inf,
    samples: int = 200,
    steps: int = 40,
    low: float | None = 0.0,
    high: float | None = 1.0,
    classes: Sequence[str] | None = None,
    pictures: int = 12,
    nearest: int = 24,
    batch_size: int = 128,
    certify: Method | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Attacked:
    """Attack a random part of `rows` of a set by PGD at each radius: on a soft margin, with steps that become shorter.

    The strongest at its price: at equal steps no attack in a ball breaks more in norms inf and 2; in norm 1 APGD breaks
    up to 2 points more, for half again the time (`benchmarks/attacks.py`, docs/bounds.md).

    An answer that a smaller radius has broken counts as broken at a larger one, so accuracy never rises with the radius
    and only what still stands is attacked further. What is found is an upper bound: another attack may break more.
    Where the gradient is masked (rounding, saturation), the attack goes on without it.

    Parameters
    ----------
    rows
        Positions in the set from which inputs are drawn: those the audit judges on.
    labels, prints
        Of the whole set: labels, and fingerprints of the inputs, by which they are known again.
    radii
        In units of the inputs, each > 0; norm 1, 2 or inf over all values of an input.
    low, high
        The box of valid inputs.
    nearest
        Of how many inputs that are answered rightly, drawn at random, the smallest adversarial perturbation is looked
        for; see `audits.smallest`.
    certify
        Bounds by which answers are proved to stay: with the accuracy under attack, the true one lies between the two.

    Raises
    ------
    OptionError
        If a radius is not positive or there are none.
    DataError
        If inputs lie outside of the box, or the set no longer gives those that were observed.
    ModelError
        If the model has no gradient with respect to its inputs.
    """
    radii = check(radii, nearest)
    chosen, clean, truth = drawn(model, batches, rows, labels, prints, samples, generator, option="attack_radii")
    found, broken_at = clean.clone(), torch.full((len(clean),), math.inf, dtype=torch.float64, device=clean.device)
    broken_at[~right(model, clean, truth, batch_size)] = 0.0
    blind = masked(model, clean, truth)
    for radius in radii:
        say(f"attacking within {radius:g}")
        ball = Ball(norm, radius, low, high)
        standing = torch.isinf(broken_at).nonzero().squeeze(1)
        for part in _parts(standing[~blind[standing]], batch_size):
            found[part] = pgd(model, clean[part], truth[part], ball, generator=generator, steps=steps)
        for part in _parts(standing[blind[standing]], batch_size):
            say(f"attacking within {radius:g} without the gradient, which is zero")
            found[part] = without_gradient(model, clean[part], truth[part], ball, generator=generator)
        broken_at[standing[~right(model, found[standing], truth[standing], batch_size)]] = radius
    shares: list[float | None] = [None] * len(radii)
    if certify is not None:
        balls = [Ball(norm, radius, low, high) for radius in radii]
        shares[:] = proved(model, clean, truth, broken_at, balls, method=certify, say=say)
    order = _worst(model, found, broken_at)[:pictures]
    names = classes if classes is not None else [str(k) for k in range(int(truth.max()) + 1)]
    near = None
    if nearest and len(safe := (broken_at > 0).nonzero().squeeze(1)):
        own = safe[torch.randperm(len(safe), generator=generator)[:nearest].sort().values.to(safe.device)]
        near = smallest(
            model, clean[own], truth[own], Ball(norm, 0.0, low, high), reached=found[own], masked=blind[own],
            places=chosen[own.cpu()], names=names, pictures=pictures, say=say,
        )  # fmt: skip
    return Attacked(
        attack=f"PGD on a soft margin, {steps} steps that become shorter, random start",
        norm=NORMS[norm],
        samples=len(clean),
        masked=int((blind & (broken_at > 0)).sum()),
        radii=[_share(0.0, None, broken_at), *(_share(*pair, broken_at) for pair in zip(radii, shares, strict=True))],
        notes=list(warnings_of(model, clean[:batch_size], torch.zeros(0, dtype=torch.bool))),
        certified_by=certify or "",
        pictures=_shown(model, clean, found, broken_at, order, chosen, truth, names),
        smallest=near,
    )


def drawn(
    model: nn.Module,
    batches: Batches,
    rows: Tensor,
    labels: Tensor,
    prints: Tensor,
    samples: int,
    generator: torch.Generator,
    *,
    option: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the set of a random part of `rows`; their inputs and labels, where the model is.

    Raises
    ------
    OptionError
        If there are to be none, or the inputs are not one tensor.
    """
    if samples < 1:
        raise OptionError(f"attack_samples: expected at least 1, got {samples}")
    chosen = rows[torch.randperm(len(rows), generator=generator)[:samples]].sort().values
    clean = moved(_one(take(batches, chosen, prints, "test"), option), model)
    return chosen, clean, labels[chosen].to(clean.device)


def gradient_note(found: Attacked) -> str:
    """What a reader must know if the gradient was masked; empty if it was not."""
    if not found.masked:
        return ""
    return (
        f"Attack: the gradient with respect to the input is zero at {found.masked} of {found.samples} attacked inputs "
        "(the network rounds, saturates or detaches its inputs). They were also attacked with the gradient of rounding "
        "replaced by 1 and with estimated gradients, but the accuracy under attack may still look better than it is."
    )


def _parts(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Chunks of rows, none of them empty: not every network takes a batch of no samples."""
    return rows.split(size) if len(rows) else ()


def right(model: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Which inputs are answered with their label."""
    with torch.no_grad():
        parts = zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([answered(model, x).argmax(1) == y for x, y in parts]) if len(labels) else labels.bool()


def _share(radius: float, verified: float | None, broken_at: Tensor) -> AttackedRadius:
    found = interval_of_share(int((broken_at > radius).sum()), len(broken_at))
    return AttackedRadius(radius=radius, accuracy=found.value, low=found.low, high=found.high, verified=verified)


def _worst(model: nn.Module, found: Tensor, broken_at: Tensor) -> list[int]:
    """Broken by the attack, at the smallest radius first, then the surest mistakes."""
    broken = ((broken_at > 0) & torch.isfinite(broken_at)).nonzero().squeeze(1).tolist()
    if not broken:
        return []
    with torch.no_grad():
        sure = dict(zip(broken, answered(model, found[broken]).softmax(1).amax(1).tolist(), strict=True))
    return sorted(broken, key=lambda row: (float(broken_at[row]), -sure[row], row))


def _shown(
    model: nn.Module,
    clean: Tensor,
    found: Tensor,
    broken_at: Tensor,
    order: Sequence[int],
    places: Tensor,
    truth: Tensor,
    names: Sequence[str],
) -> list[AttackedPicture]:
    shown: list[AttackedPicture] = []
    for row in order:
        one = mistake(model, clean[row], found[row], int(truth[row]), names)
        if not one.before:
            return []  # no pictures: a table's rows, say
        shown.append(AttackedPicture(index=int(places[row]), radius=float(broken_at[row]), **one._asdict()))
    return shown
