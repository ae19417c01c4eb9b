"""What is proved under attack: answers that no change within a radius can alter, and OOD inputs that stay detected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.batches import Inputs, Several
from caveat.bounds.confidence import guaranteed_auroc, highest_confidence
from caveat.bounds.outputs import bounds, traced
from caveat.errors import ModelError, OptionError, known_name
from caveat.graph import Graph
from caveat.inputs import moved, take
from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally_sets
from caveat.observations import Observations
from caveat.records.attack import Guaranteed
from caveat.types import Batches

__all__ = ["Method", "check", "contradiction", "guaranteed", "proved"]

Method = Literal["interval", "deeppoly"]
METHODS = ("deeppoly", "interval")
BATCH = 50
"""Inputs that are bounded at once."""


def check(model: nn.Module, first: Inputs, method: str, *, asked: bool) -> Method:
    """The method; refuse a network that no bounds are known for, before any work.

    `asked` says whether there is anything to certify.

    Raises
    ------
    OptionError
        If there is no such method, nothing is asked for, or inputs are not one tensor.
    ModelError
        As `graph.trace`.
    """
    known_name("attack_certify", method, METHODS)
    if not asked:
        raise OptionError("attack_certify: expected attack_radii or attack_transform beside it: against which changes?")
    if isinstance(first, Several):
        raise OptionError("attack_certify: expected inputs of one tensor, which a radius can be around, got several")
    traced(model, moved(first[:1], model))
    return "interval" if method == "interval" else "deeppoly"


def contradiction() -> ModelError:
    """What is said of a network that an attack broke where nothing can."""
    return ModelError(
        "model: an attack broke an answer that bounds prove to stay: it computes something else than its layers say "
        "(its forward pass depends on values), so no certificate holds; leave out the certificate"
    )


def proved(
    model: nn.Module,
    clean: Tensor,
    truth: Tensor,
    broken_at: Tensor,
    balls: Sequence[Ball],
    *,
    method: Method,
    say: Callable[[str], None],
    graph: Graph | None = None,
) -> list[float]:
    """For each ball, from the smallest, the share of inputs whose right answer is proved to stay anywhere in it.

    `broken_at` is the radius at which an attack changed the answer, infinite where none did. Without a network that
    contradicts itself no share exceeds the accuracy under attack.

    Raises
    ------
    ModelError
        If no bounds are known for an operation of the network, or an attack broke what was proved.
    """
    graph = traced(model, clean[:1], graph)
    open_rows = (broken_at > 0).nonzero().squeeze(1)  # those an attack broke too: a proof would contradict it
    shares: list[float] = []
    for ball in balls:
        say(f"certifying within {ball.radius:g}")
        safe = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        for rows in open_rows.split(BATCH) if len(open_rows) else ():
            low, _ = bounds(
                model, clean[rows], ball, method=method, outputs="margins", labels=truth[rows], graph=graph
            )  # fmt: skip
            safe[rows] = (low > 0).all(dim=1)
        if bool((safe & (broken_at <= ball.radius)).any()):
            raise contradiction()
        shares.append(float(safe.double().mean()))
        open_rows = safe.nonzero().squeeze(1)  # what a smaller ball does not hold, a larger one does not
    return shares


def guaranteed(
    model: nn.Module,
    known: Observations,
    ood: Mapping[str, tuple[Batches, Observations]],
    balls: Sequence[Ball],
    *,
    samples: int,
    method: Method,
    generator: torch.Generator,
    say: Callable[[str], None],
) -> list[Guaranteed]:
    """Per OOD set and ball, the AUROC of the maximum softmax probability that no change of OOD inputs can lower.

    OOD inputs outside of the balls' box are left out; sets without others are too.
    """
    confidence = known.logits.double().softmax(dim=1).amax(dim=1)
    found: list[Guaranteed] = []
    graph: Graph | None = None
    for name, (batches, seen) in ood.items():
        assert seen.fingerprints is not None
        rows = torch.randperm(len(seen), generator=generator)[:samples].sort().values
        taken = take(batches, rows, seen.fingerprints, name)
        if isinstance(taken, Several):
            continue
        inputs = moved(taken, model)
        inside = ((inputs >= 0) & (inputs <= 1)).flatten(1).all(dim=1)
        inputs, kept = inputs[inside], seen.logits[rows[inside.cpu()]]
        if not len(inputs):
            continue
        graph = traced(model, inputs[:1], graph)
        plain = float(auroc(tally_sets(-confidence, -kept.double().softmax(dim=1).amax(dim=1))))
        for ball in balls:
            say(f"certifying {name} within {ball.radius:g}")
            parts = inputs.split(BATCH)
            highest = torch.cat([highest_confidence(model, one, ball, method=method, graph=graph) for one in parts])
            worst = float(guaranteed_auroc(confidence, highest.cpu()))
            found.append(Guaranteed(ood=name, samples=len(inputs), radius=ball.radius, auroc=plain, guaranteed=worst))
    return found
