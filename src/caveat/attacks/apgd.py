"""APGD: PGD that sets its own step length, so that there is nothing to tune."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import Start, above, evaluated, uniform
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, dlr, dlr_towards, soft_margin, towards
from caveat.attacks.network import Harm, checked, others_by_logit
from caveat.attacks.noise import drawn
from caveat.errors import ModelError, OptionError
from caveat.types import Labels

__all__ = ["apgd", "apgd_dlr", "apgd_targeted"]

INERTIA = 0.25  # share of the last move that goes on
RISING = 0.75  # share of steps that must have raised the loss for a step length to be kept
FIRST, FASTER, LEAST = 0.22, 0.03, 0.06  # shares of the steps until the next look: the first, less each time, no less
LOOKS_OF_1, SPARSER, SHORTEST = 0.04, 1.5, 10.0  # of norm 1: share of the steps between looks; factors
WIDEST = 0.01  # of norm 1: share of the values that the first steps move
PHASES_OF_1 = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # of norm 1: multiples of the radius, and their shares of the steps


def apgd(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = soft_margin,
    targeted: bool = False,
    steps: int = 100,
    restarts: int = 1,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """PGD with inertia whose steps begin at twice the radius and are halved, from the best point, where they stall.

    Without a step length to choose. Costs `restarts` times `steps` forward and backward passes and two forward passes;
    a later restart is only made for the samples that still stand. What comes back is a point with another answer than
    the label where one was met, the one of largest loss, and otherwise the point of largest loss, at least the input's.
    With the loss `log_odds` it is APGD-CE, as only the order of the loss's values and the direction of its gradient
    count, and is not stopped by a network that is confident; the default breaks more (`benchmarks/attacks.py`).
    Formula: z = P(x + h d), x' = P(x + 0.75 (z - x) + 0.25 (x - x_before)), d as in `Ball.step`; h <- h / 2 and x <-
    the best, at checkpoints, where fewer than 75 % of the steps raised the loss, or h and the best stood still. For
    norm 1 a step moves the values of largest gradient alone by the same amount, as many as the best change has, over
    1.5; it is made in balls of three, two and one times the radius in turn.

    Raises
    ------
    ModelError
        If the model is in training mode, does not give logits (n, c), or has no gradient.
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the ball's box.
    OptionError
        If there are fewer than 0 steps or less than one restart.

    Source: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks, ICML 2020 (arXiv 2003.01690), algorithm 1; for norm 1 Croce and Hein, Mind the Box, ICML 2021 (arXiv
    2103.01208), algorithm 1.
    """
    labels = checked(model, inputs, labels)
    climbed = towards(loss) if targeted else loss
    tries: list[Callable[[Tensor], Loss]] = [lambda rows: climbed] * restarts
    return _tried(model, inputs, labels, ball, tries, generator=generator, steps=steps, start=start, targeted=targeted)


def apgd_dlr(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = dlr,
    steps: int = 100,
    restarts: int = 1,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """APGD with the margin between logits over their spread as its loss, which no scale of the logits stops.

    Finds what cross-entropy misses, at the same price. With fewer than three classes the loss is the margin.
    Formula: `apgd` with the loss (max_{k != y} z_k - z_y) / (z_(1) - z_(3)).

    Raises
    ------
    ModelError, DataError, OptionError
        As `apgd`.

    Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), equation 6.
    """
    return apgd(
        model, inputs, labels, ball, generator=generator, loss=loss, steps=steps, restarts=restarts, start=start
    )  # fmt: skip


def apgd_targeted(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 100,
    targets: int = 9,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """APGD towards each of the likeliest other classes in turn, on the samples that still stand.

    Any answer but the label is an end, not only the target. Costs up to `targets` times what `apgd` costs. With three
    classes the spread of the logits is z_(1) - z_(3), with two the loss is the margin.
    Formula: `apgd` with the loss (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), t the classes in the order of their
    logits at the input.

    Raises
    ------
    ModelError, DataError, OptionError
        As `apgd`; and if there is no target.

    Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), equation 7.
    """
    labels = checked(model, inputs, labels)
    if targets < 1:
        raise OptionError(f"targets: expected at least 1, got {targets}")
    others = others_by_logit(model, inputs, labels)

    def of_target(k: int) -> Callable[[Tensor], Loss]:
        return lambda rows: dlr_towards(others[rows, k])

    tries = [of_target(k) for k in range(max(1, min(targets, others.shape[1])))]
    return _tried(model, inputs, labels, ball, tries, generator=generator, steps=steps, start=start)


@dataclass(frozen=True)
class _Point:
    """Where samples are, what that is worth, where it rises, and which of them have another answer."""

    at: Tensor
    values: Tensor
    gradient: Tensor
    ended: Tensor

    def where(self, rows: Tensor, other: "_Point") -> "_Point":
        """This one in the given rows, the other in the rest."""
        mine, theirs = ((p.at, p.values, p.gradient, p.ended) for p in (self, other))
        return _Point(*(torch.where(_rows(rows, a), a, b) for a, b in zip(mine, theirs, strict=True)))

    def kept(self, other: "_Point") -> "_Point":
        """Of each two the one to give back: that with another answer, and of those the one of larger loss."""
        wins = (other.ended & ~self.ended) | ((other.ended == self.ended) & above(other.values, self.values))
        return other.where(wins, self)


@dataclass(frozen=True)
class _Pace:
    """How far each sample steps, and what its last look found."""

    length: Tensor
    share: Tensor
    """Of the values of a sample, those that move; for norm 1 alone."""
    best: Tensor
    """The best value at the last look; for norm 1 how many values its change has."""
    stalled: Tensor
    """Where the last look made the step shorter."""


def _tried(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    ball: Ball,
    tries: Sequence[Callable[[Tensor], Loss]],
    *,
    generator: torch.Generator,
    steps: int,
    start: Start,
    targeted: bool = False,
) -> Tensor:
    """One climb a try, on what still stands; of the rows that are left a try gives the loss."""
    if steps < 0 or not tries:
        raise OptionError(f"steps, restarts: expected at least 0 and 1, got {steps} and {len(tries)}")
    ball.check(inputs)
    # inputs made under inference_mode cannot be differentiated; a copy made here can
    with torch.inference_mode(False), torch.enable_grad():
        noise, centres = drawn(len(inputs), generator, inputs.device), inputs.detach().clone()
        found, rows = centres.clone(), torch.arange(len(inputs), device=inputs.device)
        for number, loss_of in enumerate(tries if steps and ball.radius else ()):
            if not len(rows):
                break
            function, own = Harm(model, labels[rows], loss_of(rows)), centres[rows]
            begin = start(ball, own, noise.of(rows), number)
            kept = _climbed(function, own, ball, begin, steps, targeted=targeted)
            taken = kept.ended | (number == 0)
            found[rows[taken]] = kept.at[taken]
            rows = rows[~kept.ended]
    return found


def _climbed(function: Harm, centres: Tensor, ball: Ball, points: Tensor, steps: int, *, targeted: bool) -> _Point:
    """Of the inputs and of all points met in the ball the one to keep."""
    with torch.no_grad():
        values = function(centres)
    if bool(values.isnan().any()):
        raise ModelError("model: its loss is NaN at some of the inputs: look at the model and at the inputs")
    kept, left = _Point(centres, values, torch.zeros_like(centres), function.ended(targeted=targeted)), steps
    share = torch.full_like(values, WIDEST)
    for times, part in PHASES_OF_1[:-1] if ball.norm == 1 else ():
        if count := int(part * steps):
            wide = ball.resized(times * ball.radius)
            peak, _ = _course(function, centres, wide, wide.project(points, centres), count, share, targeted=targeted)
            points, share, left = peak.at, _changed(peak.at, centres) / centres[0].numel() / SPARSER, left - count
    peak, met = _course(function, centres, ball, ball.project(points, centres), left, share, targeted=targeted)
    del peak
    return kept.kept(met)


def _course(
    function: Harm,
    centres: Tensor,
    ball: Ball,
    points: Tensor,
    steps: int,
    share: Tensor,
    *,
    targeted: bool,
) -> tuple[_Point, _Point]:
    """The point of largest loss met, and the one to keep."""
    project, now = ball.projector(centres), _at(function, points, targeted=targeted)
    peak = kept = now
    length = torch.full_like(now.values, (1 if ball.norm == 1 else 2) * ball.radius)
    pace = _Pace(length, share, _worth(ball, peak, centres), torch.zeros_like(now.ended))
    before, rises, gaps = points, torch.zeros_like(now.values), _gaps(ball, steps)
    until = gap = next(gaps)
    for index in range(1, steps + 1):
        moved = project(now.at + _move(ball, now.at, now.gradient, pace))
        if index > 1 and ball.norm != 1:
            moved = project(now.at + (1 - INERTIA) * (moved - now.at) + INERTIA * (now.at - before))
        before, last = now.at, now.values
        now = _at(function, moved, targeted=targeted, slope=index < steps)
        rises += above(now.values, last)
        peak, kept, until = now.where(above(now.values, peak.values), peak), kept.kept(now), until - 1
        if not until and index < steps:
            again, pace = (_sparser if ball.norm == 1 else _halved)(ball, pace, peak, centres, rises / gap)
            now = peak.where(again, now)
            rises, gap = torch.zeros_like(rises), next(gaps)
            until = gap
    return peak, kept


def _at(function: Harm, points: Tensor, *, targeted: bool, slope: bool = True) -> _Point:
    if slope:
        values, gradient = evaluated(function, points)
    else:
        with torch.no_grad():
            values, gradient = function(points), torch.zeros_like(points)
    return _Point(points, values, gradient, function.ended(targeted=targeted))


def _gaps(ball: Ball, steps: int) -> Iterator[int]:
    """How many steps lie between two looks."""
    gap = max(int((LOOKS_OF_1 if ball.norm == 1 else FIRST) * steps), 1)
    while True:
        yield gap
        if ball.norm != 1:
            gap = max(gap - max(int(FASTER * steps), 1), max(int(LEAST * steps), 1))


def _worth(ball: Ball, peak: _Point, centres: Tensor) -> Tensor:
    """What the next look compares with."""
    return torch.full_like(peak.values, centres[0].numel()) if ball.norm == 1 else peak.values


def _halved(ball: Ball, pace: _Pace, peak: _Point, centres: Tensor, risen: Tensor) -> tuple[Tensor, _Pace]:
    """Half the step where too few steps rose, or nothing better was found with a step that is as long as before."""
    del ball, centres
    stalls = (risen <= RISING) | (~pace.stalled & ~above(peak.values, pace.best))
    return stalls, replace(
        pace, length=torch.where(stalls, pace.length / 2, pace.length), best=peak.values, stalled=stalls
    )  # fmt: skip


def _sparser(ball: Ball, pace: _Pace, peak: _Point, centres: Tensor, risen: Tensor) -> tuple[Tensor, _Pace]:
    """As few values as the best change has, over 1.5; a full step again where they became fewer, else a shorter one."""
    del risen
    changed = _changed(peak.at, centres)
    fewer = changed < 0.95 * pace.best
    shorter = (pace.length / SPARSER).clamp_min(ball.radius / SHORTEST)
    length = torch.where(fewer, torch.full_like(shorter, ball.radius), shorter)
    return fewer, _Pace(length, changed / centres[0].numel() / SPARSER, changed, fewer)


def _changed(points: Tensor, centres: Tensor) -> Tensor:
    """How many values have moved, rounding apart."""
    return ((points - centres).abs() > 1e-6 * centres.abs().clamp_min(1)).flatten(1).sum(1).to(points.dtype)


def _move(ball: Ball, points: Tensor, gradient: Tensor, pace: _Pace) -> Tensor:
    """A step of the samples' own lengths; for norm 1 of the values of largest gradient, all by the same amount."""
    if ball.norm != 1:
        return ball.step(torch.zeros_like(gradient), gradient, 1.0) * _rows(pace.length, gradient)
    size = ball.slopes(points, gradient).flatten(1)
    count = (pace.share * size.shape[1]).long().clamp(1, size.shape[1])
    least = size.topk(int(count.max()), dim=1).values.gather(1, count[:, None] - 1)
    signs = torch.ge(size, least.clamp_min(torch.finfo(size.dtype).tiny), out=torch.empty_like(size))
    signs = signs.mul_(gradient.flatten(1).sign())
    return (signs * pace.length[:, None] / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
