"""A network is observed once; everything else is a pure function of what was observed.

`observe` runs a model over batches and keeps logits, labels and features: in memory, or streamed to one
memory-mapped safetensors file, so that memory does not grow with the number of samples.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import exp
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor, nn

from caveat import devices, evaluation, heads, storage
from caveat.batches import Inputs, Target, pair, versions
from caveat.calls import check_graph, recorded, tensor
from caveat.errors import DataError, ModelError
from caveat.inputs import check, fingerprints, moved
from caveat.mixture import log_mean
from caveat.models.adapter import adapted
from caveat.precision import all_finite, wide
from caveat.sampling import spread
from caveat.tensors import read_tensors
from caveat.types import Batches, Drawing, Features, Look, Probe

__all__ = [
    "DRAWS",
    "REFUSED",
    "Observations",
    "Outputs",
    "apart",
    "check_function",
    "check_repeats",
    "glance",
    "glance_unread",
    "load",
    "normalised",
    "observe",
    "observe_outputs",
    "outputs_of",
    "outputs_unread",
    "squashed",
]

DRAWS = "draws"
"""Name of a posterior's draws among what probes found."""

AGAIN = 8
"""Samples of a set's first batch that are asked again, to see whether the answer is a function of the input."""
FINGERPRINTS = "fingerprints"
PROBED = "probe:"
"""Prefix of a probe's name in a file of observations."""

_Arrived: TypeAlias = tuple[Callable[[], dict[str, Tensor]], Tensor, str]
"""What waits for a batch's numbers, its labels, and what to call it."""


@dataclass(frozen=True)
class Observations:
    """What one pass over a set yielded, in the set's order, on the CPU."""

    logits: Float[Tensor, "n c *pixels"]
    labels: Int[Tensor, "n *pixels"]
    features: Features | None = None
    """Input of the head; None where it was not asked for, or the model is dense."""
    probed: Mapping[str, Float[Tensor, "n *k"]] = field(default_factory=dict)
    """What each probe found, by name; of a posterior, its draws `(n, s, c)` under the name `draws`."""
    fingerprints: Int64[Tensor, " n"] | None = None
    """Of the inputs (`inputs.fingerprints`), to know them again; None where no inputs were seen."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.logits)

    def part(self, indices: Tensor) -> "Observations":
        """The samples at `indices`, in that order."""
        features = None if self.features is None else self.features[indices]
        probed = {name: found[indices] for name, found in self.probed.items()}
        prints = None if self.fingerprints is None else self.fingerprints[indices]
        return Observations(self.logits[indices], self.labels[indices], features, probed, prints)

    def thinned(self, most: int) -> "Observations":
        """At most `most` of the samples, spread over the set; itself if it has no more."""
        return self if len(self) <= most else self.part(spread(len(self), most))

    def among(self, other: "Observations") -> Bool[Tensor, " n"]:
        """Which samples are exact copies of one in `other`: by the inputs, or by logits and features without these."""
        one, two = self.fingerprints, other.fingerprints
        if one is None or two is None:
            with_features = self.features is not None and other.features is not None
            one, two = (_answers(seen, with_features=with_features) for seen in (self, other))
        return torch.isin(one, two)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file, whole or not at all."""
        with storage.File(Path(path)) as sink:
            sink.add("logits", self.logits)
            sink.add("labels", self.labels)
            if self.features is not None:
                sink.add("features", self.features)
            if self.fingerprints is not None:
                sink.add(FINGERPRINTS, self.fingerprints)
            for name, found in self.probed.items():
                sink.add(f"{PROBED}{name}", found)


def apart(train: Observations | None, test: Observations) -> Observations | None:
    """The samples of `train` that are not in `test` too: what is fitted on `test` itself can't be judged there.

    None if fewer than half remain: then the two are in the main one set.
    """
    if train is None:
        return None
    shared = train.among(test)
    if not shared.any():
        return train
    return train.part((~shared).nonzero().flatten()) if 2 * int(shared.sum()) <= len(train) else None


def _answers(seen: Observations, *, with_features: bool) -> Tensor:
    parts = [seen.logits.flatten(1)] + ([seen.features] if with_features and seen.features is not None else [])
    return fingerprints(torch.cat([part.double() for part in parts], dim=1))


def load(path: str | Path) -> Observations:
    """Memory-map observations: nothing is read until it is used.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no observations.
    """
    signals = read_tensors(path)
    return _observations(signals, str(path))


def observe(  # noqa: PLR0913  # the signature is the configuration
    model: nn.Module,
    batches: Batches,
    *,
    features: bool = True,
    head: heads.HeadLayer | str | None = None,
    probes: Mapping[str, Probe] | None = None,
    path: str | Path | None = None,
    name: str = "inputs",
    device: str | torch.device | None = None,
    dtype: str | None = None,
) -> Observations:
    """Run `model` once over `batches` and keep what scores, metrics and guards need.

    Parameters
    ----------
    features
        Keep the head's input too, for the scores that look at features.
    head
        Name of the layer that produces the logits; found by itself if None.
    probes
        What else to take from the same pass, by name (layer activations, gradients, a second look).
    path
        Stream to this safetensors file and return it memory-mapped: constant memory for any number of samples.
    name
        What to call the set in messages.
    device, dtype
        Where the network runs and in which precision (`devices.running`); by default where and as it is.

    Raises
    ------
    DataError
        If the set is empty, or inputs contain NaN or infinity.
    ModelError
        If the model is in training mode, gives no logits, gives NaN, or (with `features`) has no head.

    The model is left as it was: no hook stays, no mode or gradient changes. Of an ensemble or another posterior
    (`posteriors.Predictive`) the logits of each sample are stored, too. Results move to the CPU while the next batch is
    on its way: within a batch nothing waits for a GPU.
    """
    evaluation.check(model)
    sink = storage.File(Path(path)) if path is not None else storage.Memory()
    probes = probes or {}
    layer = head if isinstance(head, heads.HeadLayer) else None
    features = features and not isinstance(model, Drawing)  # which has as many heads as networks
    writes: bool | None = None  # whether the model changes its inputs in place: they are the caller's
    arrived: _Arrived | None = None
    with sink, devices.running(model, device, dtype), evaluation.unchanged(model):
        for number, batch in enumerate(batches):
            inputs, labels = check(batch, name)
            if not number:
                model = adapted(model, inputs, name=name)
            sink.add(FINGERPRINTS, fingerprints(inputs))
            inputs = moved(inputs, model)
            if writes is not False:  # unknown at first: the first batch is copied, to see
                inputs = inputs.clone()
            version = versions(inputs)
            if features and layer is None:
                with evaluation.without_gradients():
                    run(model, inputs[:2].clone(), name)  # so that a broken model is not taken for one without a head
                layer = heads.find(model, inputs[:16], name=head if isinstance(head, str) else None)
            where = f"batch {number} of {name}"
            logits, seen, probed = glance_unread(model, inputs, layer if features else None, probes, where)
            seen = seen if logits.ndim == 2 else None
            here = devices.arriving(_signals(logits, seen, probed))
            if arrived is not None:
                _keep(sink, *arrived)
            arrived = here, labels.long(), where
            if writes is None:
                writes = version is None or versions(inputs) != version
                _check_finite(logits, where)
                check_function(model, moved(pair(batch, name)[0], model), logits, name)
        if arrived is None:
            raise DataError(f"{name}: expected at least one batch of inputs, got an empty set")
        _keep(sink, *arrived)
    return _observations(sink.signals(), name)


def _signals(logits: Tensor, features: Tensor | None, probed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a glance gave, by name in a file of observations."""
    own = {"logits": logits} if features is None else {"logits": logits, "features": features}
    return own | {f"{PROBED}{name}": found for name, found in probed.items()}


def _keep(
    sink: storage.Memory | storage.File, wait: Callable[[], dict[str, Tensor]], labels: Tensor, where: str
) -> None:
    """Add one batch once its numbers are there."""
    signals = wait()
    sink.add("labels", labels)
    for name, signal in signals.items():
        if name in ("logits", PROBED + DRAWS):
            _check_finite(signal, where)
        sink.add(name, signal)


@dataclass(frozen=True)
class Outputs:
    """What one pass of a regression or multi-label network over a set yielded, in the set's order, on the CPU."""

    values: Float[Tensor, "s n k"]
    """The outputs of every network; of one, s = 1."""
    labels: Float64[Tensor, "n *labels"]
    """Real, NaN where there are none; or `(n, c)` of 0 and 1, where c = 0 means that there are none."""
    fingerprints: Int64[Tensor, " n"]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def part(self, indices: Tensor) -> "Outputs":
        """The samples at `indices`, in that order."""
        return Outputs(self.values[:, indices], self.labels[indices], self.fingerprints[indices])

    def among(self, other: "Outputs") -> Bool[Tensor, " n"]:
        """Which samples are exact copies of one in `other`, by the inputs."""
        return torch.isin(self.fingerprints, other.fingerprints)


def observe_outputs(model: nn.Module, batches: Batches, *, name: str = "inputs", target: Target = "number") -> Outputs:
    """Run a regression network (`models.as_columns`) or a multi-label one, or an ensemble, once over a set; keep all.

    Raises
    ------
    DataError
        If the set is empty, or inputs are NaN or infinite.
    ModelError
        If the model is in training mode, gives other than `(n, k)` or NaN, or does not repeat itself.
    """
    evaluation.check(model)
    found: list[Outputs] = []
    with evaluation.unchanged(model), evaluation.without_gradients():
        for number, batch in enumerate(batches):
            inputs, labels = check(batch, name, target=target)
            prints = fingerprints(inputs)
            inputs = moved(inputs, model).clone()  # a network may write into it
            where = f"batch {number} of {name}"
            outputs = outputs_of(model, inputs.clone(), where)
            if not number and not isinstance(model, Drawing):
                check_repeats(lambda part: outputs_of(model, part, name)[0], inputs, outputs[0])
            found.append(Outputs(outputs, labels.double().cpu(), prints.cpu()))
    if not found:
        raise DataError(f"{name}: expected at least one batch of inputs, got an empty set")
    return Outputs(
        torch.cat([one.values for one in found], dim=1),
        torch.cat([one.labels for one in found]),
        torch.cat([one.fingerprints for one in found]),
    )


def outputs_of(model: nn.Module, inputs: Inputs, where: str) -> Tensor:
    """The outputs `(s, n, k)` of a network of any task or of the draws of a posterior, on the CPU."""
    made = outputs_unread(model, inputs, where)
    _check_finite(made, where)
    made = made.cpu()
    if made.ndim != 3 or made.shape[1] != len(inputs):
        raise ModelError(
            f"model: expected outputs (n, k), a row for each of {len(inputs)} inputs, got {tuple(made.shape[1:])}"
        )
    return made


def outputs_unread(model: nn.Module, inputs: Inputs, where: str) -> Tensor:
    """The same where the network is, without a look at the numbers, as `glance_unread`."""
    several = isinstance(model, Drawing)
    with evaluation.without_gradients():
        made = tensor(_called(model.draws if several else model, inputs, where))
    return wide(made if several else made[None])


def glance(
    model: nn.Module, inputs: Inputs, head: heads.HeadLayer | None, probes: Mapping[str, Probe], where: str
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """One forward pass over one batch: logits, features (with a head) and what the probes find; all detached."""
    logits, features, probed = glance_unread(model, inputs, head, probes, where)
    for outputs in (logits, *(found for name, found in probed.items() if name == DRAWS)):
        _check_finite(outputs, where)
    return logits, features, probed


def glance_unread(
    model: nn.Module, inputs: Inputs, head: heads.HeadLayer | None, probes: Mapping[str, Probe], where: str
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """The same without a look at the numbers, which would wait for them, and which no exported graph could take."""
    if isinstance(model, Drawing):
        return _many(model, inputs, probes, where)
    graph = any(probe.graph for probe in probes.values())
    wanted = {layer for probe in probes.values() for layer in probe.layers}
    with evaluation.with_gradients() if graph else evaluation.without_gradients():
        if graph:
            inputs = inputs.detach().clone()
            if isinstance(inputs, Tensor):
                inputs.requires_grad_(inputs.is_floating_point())
        with (
            recorded(model, wanted) as calls,
            heads.capture(model, head) if head is not None else nullcontext([]) as seen,
        ):
            # with a graph on a copy: a network may write into its inputs, and nothing may into what asks for gradients
            logits = _called(partial(heads.forward, model), inputs.clone() if graph else inputs, where)
            if graph:
                check_graph(logits)
        features = seen[0].detach() if seen else None
        silent = [name for name in wanted if not calls.get(name)]
        if silent or (head is not None and features is None):
            which = silent[0] if silent else head.name if head else ""
            raise ModelError(
                f"model: its layer {which!r} was not called where it could be watched: the model is compiled, scripted "
                "or wrapped; give the network itself, or use only scores from logits"
            )
        activations = {name: made[-1].output for name, made in calls.items() if made}
        look = Look(model, inputs, logits, activations, calls)
        probed = {name: wide(probe(look).detach()) for name, probe in probes.items()}
    return wide(logits.detach()), None if features is None else wide(features), probed


def _many(
    model: Drawing, inputs: Inputs, probes: Mapping[str, Probe], where: str
) -> tuple[Tensor, None, dict[str, Tensor]]:
    """The same of an ensemble or another posterior: the mean, and the logits of each sample."""
    if probes:
        raise ModelError(
            "model: it is an ensemble or another posterior; "
            f"{', '.join(probes)} needs one: observe its `model`, or use scores from draws"
        )
    with evaluation.without_gradients():
        draws = wide(_called(model.draws, inputs, where))
    return log_mean(draws), None, {DRAWS: draws.transpose(0, 1)}


def _observations(signals: dict[str, Tensor], where: str) -> Observations:
    probed = {name[len(PROBED) :]: signals.pop(name) for name in list(signals) if name.startswith(PROBED)}
    if not {"logits", "labels"} <= set(signals) <= {"logits", "labels", "features", FINGERPRINTS}:
        raise DataError(f"path: {where} holds {sorted(signals)}, expected logits, labels and perhaps features")
    return Observations(**signals, probed=probed)


REFUSED = {
    "probabilities": "every row sums to 1",
    "percentages": "every row sums to 100",
    "negated log-probabilities": "the exponentials of the negated outputs of every row sum to 1",
}
"""Forms of outputs that are not scored as logits, and how they are known."""


def check_function(model: nn.Module, inputs: Inputs, logits: Tensor, name: str) -> None:
    """Refuse a network that gives probabilities, and one whose answer is not a function of the input alone.

    Raises
    ------
    ModelError
        If its `logits` for the `inputs`, those of the set `name`, show one of the two.
    """
    form = normalised(logits)
    if form in REFUSED:
        raise ModelError(
            f"model: its outputs are {form} ({REFUSED[form]}), where logits are meant: give the network without its "
            "last softmax, or one that returns their logarithm"
        )
    check_repeats(partial(run, model, where=name), inputs, logits)


def check_repeats(answer: Callable[[Inputs], Tensor], inputs: Inputs, logits: Tensor) -> None:
    """Refuse a network whose answer is not a function of the input alone."""
    part = inputs[:AGAIN]
    with evaluation.without_gradients():
        again, turned = answer(part.clone()), answer(part.flip(0)).flip(0)
    for found, what in ((again, "is asked again"), (turned, "sees them in another order or another batch")):
        if not _close(found, logits[:AGAIN]):
            raise ModelError(
                f"model: it does not give the same outputs for the same inputs when it {what}: is dropout or noise "
                "left on, does it normalise or quantise by the batch, or keep a state? A posterior's samples are "
                "audited by posteriors.Predictive (--posterior, --dropout)"
            )


def _close(one: Tensor, other: Tensor) -> bool:
    slack = max(1e-3, 4 * float(torch.finfo(one.dtype).eps) ** 0.5 if one.dtype.itemsize < 4 else 0.0)
    return bool((one - other.to(one.dtype)).abs().max() <= slack * (1 + float(other.abs().max())))


def normalised(logits: Tensor) -> str:
    """The form of outputs that are no logits, where every row of at least eight has it; else ''.

    `log-probabilities`, of which scores that live on the level of the logits (energy, maximum logit) say nothing; or
    one of `REFUSED`.
    """
    if len(logits) < 8 or logits.ndim != 2 or logits.shape[1] < 2:
        return ""
    wide = logits.detach().double()
    if bool((wide.logsumexp(dim=1).abs() < 1e-3).all()):
        return "log-probabilities"
    if not bool((wide >= 0).all()):
        return ""
    sums = wide.sum(dim=1)
    for form, total in (("probabilities", 1), ("percentages", 100)):
        if bool(((sums - total).abs() < 1e-3 * total).all()):
            return form
    return "negated log-probabilities" if bool(((-wide).logsumexp(dim=1).abs() < 1e-3).all()) else ""


def squashed(logits: Tensor) -> str:
    """A sentence if all outputs for at least eight inputs lie in [0, 1], as those of sigmoids do; else ''."""
    if len(logits) < 8 or not bool(((logits >= 0) & (logits <= 1)).all()) or logits.shape[1] < 2:
        return ""
    most = 1 / (1 + (logits.shape[1] - 1) * exp(-1))
    return (
        "Every output of the network lies between 0 and 1, as those of sigmoids do. They were read as logits of one "
        f"class among {logits.shape[1]}, whose softmax cannot exceed {most:.0%}: give the network without its last "
        "layer, or audit it as one of several labels (task multilabel)."
    )


def run(model: nn.Module, inputs: Inputs, where: str) -> Tensor:
    """One forward pass whose failure says `where` and with which shape it was."""
    return _answered(partial(heads.forward, model), inputs, where)


def _answered(function: Callable[[Any], Tensor], inputs: Inputs, where: str) -> Tensor:
    outputs = _called(function, inputs, where)
    _check_finite(outputs, where)
    return outputs


def _called(function: Callable[[Any], Tensor], inputs: Inputs, where: str) -> Tensor:
    """The same without a look at the numbers."""
    try:
        return function(inputs)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{where}: the model fails on inputs of shape {tuple(inputs.shape)}: {reason}") from error


def _check_finite(outputs: Tensor, where: str) -> None:
    if not all_finite(outputs):
        raise ModelError(f"model: expected finite logits, got NaN or infinity on {where}")
