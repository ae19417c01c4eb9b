"""What a run over a model needs for the scores that are asked for: one plan, for audits and guards alike."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat import evaluation, heads
from caveat.batches import Inputs
from caveat.errors import CaveatError, ModelError, OptionError
from caveat.inputs import moved
from caveat.observations import check_function, normalised, run
from caveat.scoring.kinds import Sample, kind_of
from caveat.types import Drawing, Probe

__all__ = ["Plan", "plan"]

LOOKED_AT = 16
"""Inputs that the head is found by: enough to tell an identity from a clamp or a rectifier."""


@dataclass(frozen=True)
class Plan:
    """Which scores, where features are taken, and what else to look at in the shared pass."""

    names: tuple[str, ...]
    head: heads.HeadLayer | None
    probes: Mapping[str, Probe]
    left_out: Mapping[str, str]
    """Scores that this model does not allow, and why."""

    @property
    def learns_mistakes(self) -> bool:
        """Whether a score wants auxiliary OOD inputs to learn from."""
        return any(kind_of(name).learns_mistakes for name in self.names)

    def probes_of(self, *, training: bool) -> Mapping[str, Probe]:
        """What to look at in a set; on training data nothing that no score is fitted on."""
        used = {kind_of(name).signal_of(name) for name in self.names if kind_of(name).train_signal or not training}
        return {name: probe for name, probe in self.probes.items() if name in used}


@torch.inference_mode(False)  # whatever the caller is in: probes differentiate
def plan(
    names: Iterable[str],
    model: nn.Module,
    first: Inputs,
    *,
    head: str | None = None,
    features: str | None = None,
    options: Callable[[], tuple[Inputs, Tensor]],
    explicit: Iterable[str] = (),
    featured: bool = False,
) -> Plan:
    """Find the head, and make the probes that `names` need.

    Parameters
    ----------
    first
        A few inputs, to find the head by.
    head
        Name of the layer that produces the logits; found by itself if None.
    features
        Name of a layer whose input serves as features instead, without weights of a head.
    options
        Gives some hundred in-distribution inputs and labels that nothing is judged on; asked only if a score's options
        are chosen by looking at samples.
    explicit
        Scores that the user named one by one: if the model does not allow one of them, that is an error; any other is
        left out with the reason.
    featured
        Whether features are wanted also where no score is fitted on them.

    Raises
    ------
    ModelError, OptionError
        If the model is in training mode, fails, or does not allow a score in `explicit`.
    """
    evaluation.check(model)
    names, explicit = list(names), set(explicit)
    left_out: dict[str, str] = {}
    first = moved(first[:LOOKED_AT], model)
    layer = None
    asking = [name for name in names if kind_of(name).needs_features or kind_of(name).needs_head]
    if not isinstance(model, Drawing):
        with evaluation.without_gradients():
            logits = run(model, first.clone(), "test")  # so that a broken model is not taken for one without a head
        check_function(model, first, logits, "test")  # before anything is differentiated
        if normalised(logits):
            levels = [name for name in names if kind_of(name).needs_level]
            reason = "The network gives log-probabilities, whose level is constant; these scores need logits"
            if explicit & set(levels):
                raise OptionError(f"scores: {min(explicit & set(levels))} can't be had. {reason}")
            left_out |= dict.fromkeys(levels, reason)
    if features is not None:
        layer, missing = _before(model, first, names, features=features, head=head, explicit=explicit)
        left_out |= missing
    elif (asking or featured) and not isinstance(model, Drawing):
        try:
            layer = heads.find(model, first.clone(), name=head)
        except ModelError as error:
            if head is not None or featured or explicit & set(asking):
                raise
            left_out |= dict.fromkeys(asking, str(error))
    probes: dict[str, Probe] = {}
    sample: Sample | None = None
    for name in (name for name in names if name not in left_out):
        kind = kind_of(name)
        if kind.probe is None or kind.signal_of(name) in probes:
            continue
        if sample is None or (kind.needs_options and len(sample.labels) == 0):
            inputs, labels = options() if kind.needs_options else (first.clone(), torch.empty(0, dtype=torch.int64))
            inputs = moved(inputs, model)
            sample = Sample(model, inputs, labels.to(inputs.device), layer)
        try:
            probes[kind.signal_of(name)] = kind.probe(kind.table[name], sample)
        except CaveatError as error:
            if name in explicit:
                raise
            left_out[name] = str(error)
        except RuntimeError as error:  # what torch says of a network that it cannot look into or differentiate
            refusal = ModelError(f"model: {name} can't be had of it: {str(error).splitlines()[0]}")
            if name in explicit:
                raise refusal from error
            left_out[name] = str(refusal)
    return Plan(tuple(name for name in names if name not in left_out), layer, probes, left_out)


def _before(
    model: nn.Module, first: Inputs, names: list[str], *, features: str, head: str | None, explicit: set[str]
) -> tuple[heads.HeadLayer, dict[str, str]]:
    """The layer that features are taken before, and the scores that need more than features."""
    if head is not None:
        raise OptionError("features: expected it or head, got both")
    if isinstance(model, Drawing):
        raise OptionError("features: a posterior has as many features as networks; audit one of them")
    needing = [name for name in names if kind_of(name).needs_head]
    reason = f"It needs the weights of the last layer, and features are taken before {features!r}"
    if explicit & set(needing):
        raise OptionError(f"scores: {min(explicit & set(needing))} can't be had. {reason}")
    return heads.before(model, first.clone(), features), dict.fromkeys(needing, reason)
