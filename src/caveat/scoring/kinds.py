"""The kinds of scores: one row says what a kind needs, how it is fitted and applied; nothing else asks for a kind.

A new kind is one row of `KINDS`; a new score one line in a table of `caveat.scores`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from caveat import evaluation, heads, scores, stages
from caveat.batches import Inputs, Several
from caveat.errors import OptionError
from caveat.observations import DRAWS, Observations
from caveat.once import shared
from caveat.records.record import Family
from caveat.types import Head, Probe

__all__ = ["GRADIENTS", "KINDS", "Family", "Kind", "Material", "Sample", "columns", "kind_of"]

GRADIENTS = "gradients"
"""Name of the probe that all scores from gradients share."""

Function = Callable[..., Any]


@dataclass(frozen=True)
class Sample:
    """In-distribution inputs that nothing is judged on: probes are made from them, and their options chosen."""

    model: nn.Module
    inputs: Inputs
    labels: Tensor
    head: heads.HeadLayer | None

    @cached_property
    def stages(self) -> Mapping[str, Tensor]:
        """Activations of a few inputs, by layer."""
        found = stages.activations(self.model, self.inputs[:2].clone())
        if not found:
            raise OptionError("scores: this one needs layers before the logits; the model has none that give tensors")
        return found

    @cached_property
    def features(self) -> Tensor:
        """The head's input of a few inputs."""
        if self.head is None:
            raise OptionError("scores: this one needs the head of the model")
        with evaluation.without_gradients(), heads.capture(self.model, self.head) as seen:
            self.model(self.inputs[:2].clone())
        return seen[0]


@dataclass(frozen=True)
class Material:
    """What scores are fitted on."""

    train: Observations
    """In-distribution data of the training set, or of what stands for it."""
    head: Head | None
    held_out: Observations
    """In-distribution data that the network was not trained on: mistakes are learned from these."""
    outliers: Observations | None = None
    """Inputs known to be out-of-distribution, which meta classifiers learn from too."""

    @cached_property
    def moments(self) -> scores.moments.Moments:
        """Class means and covariance of the features, gathered once for all that use them."""
        return shared(scores.moments.of, there(self.train.features, "features"), self.train.labels)


@dataclass(frozen=True)
class Kind:
    """One kind of score: rows of `table` that need, are fitted and are applied alike."""

    family: Family
    """What it needs, in the words of record and command line."""
    table: Mapping[str, Any]
    fit: Callable[[Any, Material, str, Probe | None], Callable[..., Tensor] | None]
    """From a row of the table, what it is fitted on, the probe's signal and the probe, to the fitted score."""
    apply: Callable[[Any, Tensor, Tensor | None, Tensor | None], Tensor]
    """From the fitted score, logits, features and what the probe found, to the scores `(n,)`."""
    fitter: Callable[[Any], Function | None] = lambda _: None
    """The function of a row whose annotated return is what is fitted; None if nothing is."""
    prober: Callable[[Any], Function | None] = lambda _: None
    """The function of a row that makes its probe; None if logits and features are enough."""
    probe: Callable[[Any, Sample], Probe] | None = None
    """Make a row's probe."""
    signal: str = ""
    """Name of the probe that all rows share; empty: each has its own, of its own name."""
    one_pass: bool = False
    """Whether it costs nothing beside one plain forward pass, so that it is among the default scores."""
    in_all: bool = True
    """Whether `all` means it too."""
    needs_features: bool = False
    needs_head: bool = False
    needs_options: bool = False
    """Whether options of its probe are chosen by looking at labelled samples."""
    needs_level: bool = False
    """Whether the level of the logits counts: of log-probabilities, as an ensemble gives them, it is constant."""
    from_draws: bool = False
    """Whether it needs the posterior samples of an ensemble or another posterior."""
    on_many: bool = False
    """Whether it can be had of the mean of a posterior's samples."""
    learns_mistakes: bool = False
    """Whether it is fitted on held-out mistakes and auxiliary OOD inputs."""
    train_signal: bool = True
    """Whether its probe's numbers of the training set are of use."""
    own_text: bool = False
    """Whether each row's own docstring describes it, instead of its module's."""

    def signal_of(self, name: str) -> str:
        """Under which name of `Observations.probed` the numbers of this score are."""
        return self.signal or name


def there(signal: Tensor | None, what: str = "signal") -> Tensor:
    """The signal, or a word about its absence."""
    if signal is None:
        raise OptionError(f"scores: these observations lack the {what} this score needs; observe again with it")
    return signal


def columns(probed: Tensor, logits: Tensor) -> Tensor:
    """What meta classifiers look at: the statistics of every layer's gradient, and the entropy."""
    return torch.cat([probed, scores.logits.entropy(logits).unsqueeze(1).to(probed.dtype)], dim=1)


def _second_look(choose: Function, sample: Sample) -> Probe:
    if isinstance(sample.inputs, Several) or not sample.inputs.is_floating_point():
        raise OptionError("scores: this one perturbs its inputs, which must be one tensor of floating numbers")
    return choose(sample.model, sample.inputs, sample.labels)


def _perturbed(choose: Function, sample: Sample) -> Probe:
    inside = isinstance(sample.inputs, Tensor) and bool(((sample.inputs >= 0) & (sample.inputs <= 1)).all())
    # inputs that are no pictures in [0, 1] have no box that a step must stay in
    found: Any = _second_look(choose, sample)
    return found if inside else replace(found, low=None, high=None)


def _stepped(choose: Function, sample: Sample) -> Probe:
    if sample.head is None:
        raise OptionError("scores: this one needs the features of the model, and none were found")
    return _perturbed(partial(choose, head=sample.head.name, pooled=sample.head.pooled), sample)


def _fit_meta(fit: Function, material: Material, signal: str, probe: Probe | None) -> Callable[..., Tensor]:
    known = material.held_out
    wrong = known.logits.argmax(dim=1) != known.labels
    seen = [
        columns(there(part.probed.get(signal)), part.logits)
        for part in (known, material.outliers)
        if part is not None
    ]  # fmt: skip
    wrong = torch.cat([wrong, wrong.new_ones(sum(map(len, seen)) - len(wrong))])
    names = (*getattr(probe, "columns", ()), "entropy") if probe is not None else ()
    return fit(torch.cat(seen), wrong, names=names)


def _gradients(_: Any, sample: Sample) -> Probe:
    return scores.gradients.probe(sample.model, sample.inputs[:2])


def _uniform_gradients(_: Any, sample: Sample) -> Probe:
    return scores.gradients.probe(sample.model, sample.inputs[:2], target="uniform")


def _dropped(_: Any, sample: Sample) -> Probe:
    if isinstance(sample.inputs, Several):
        raise OptionError("scores: this one draws networks with dropout, whose inputs must be one tensor")
    return scores.mc_dropout.probe(sample.model, sample.inputs)


def _features(material: Material) -> Tensor:
    return there(material.train.features, "features")


_WEIGHTED = {"weighted_energy": scores.FROM_KNOWN_LOGITS["weighted_energy"]}

KINDS: Sequence[Kind] = (
    Kind(
        "logits", scores.FROM_LOGITS,
        fit=lambda row, *_: row, apply=lambda f, logits, *_: f(logits),
        one_pass=True, on_many=True, own_text=True,
    ),
    Kind(
        "logits", scores.FROM_RAW_LOGITS,
        fit=lambda row, *_: row, apply=lambda f, logits, *_: f(logits),
        one_pass=True, needs_level=True, own_text=True,
    ),
    Kind(
        "logits", _WEIGHTED,
        fit=lambda row, m, *_: row(m.train.logits, m.train.labels), apply=lambda f, logits, *_: f(logits),
        fitter=lambda row: row, one_pass=True, needs_level=True,
    ),
    Kind(
        "logits", {name: row for name, row in scores.FROM_KNOWN_LOGITS.items() if name not in _WEIGHTED},
        fit=lambda row, m, *_: row(m.train.logits, m.train.labels), apply=lambda f, logits, *_: f(logits),
        fitter=lambda row: row, one_pass=True, on_many=True,
    ),
    Kind(
        "draws", scores.FROM_DRAWS,
        fit=lambda row, *_: row, apply=lambda f, _, __, probed: f(there(probed).transpose(0, 1)),
        signal=DRAWS, one_pass=True, on_many=True, from_draws=True, own_text=True,
    ),
    Kind(
        "features", scores.FROM_MOMENTS,
        fit=lambda row, m, *_: row(m.moments, dtype=_features(m).dtype),
        apply=lambda f, _, features, __: f(there(features, "features")),
        fitter=lambda row: row, one_pass=True, needs_features=True,
    ),
    Kind(
        "features", scores.FROM_FEATURES,
        fit=lambda row, m, *_: row(_features(m), m.train.labels),
        apply=lambda f, _, features, __: f(there(features, "features")),
        fitter=lambda row: row, one_pass=True, needs_features=True,
    ),
    Kind(
        "head", scores.FROM_HEAD,
        fit=lambda row, m, *_: row(_features(m), m.train.labels, m.head),
        apply=lambda f, _, features, __: f(there(features, "features")),
        fitter=lambda row: row, one_pass=True, needs_features=True, needs_head=True,
    ),
    Kind(
        "layers", scores.FROM_LAYERS,
        fit=lambda row, m, signal, probe: row[1](
            there(m.train.probed.get(signal)), m.train.logits, m.train.labels, probe
        ),
        apply=lambda f, logits, _, probed: f(there(probed), logits),
        fitter=lambda row: row[1], prober=lambda row: row[0], probe=lambda row, sample: row[0](sample.stages),
    ),
    Kind(
        "layers", scores.FROM_MAPS,
        fit=lambda row, m, *_: row[1](m.head), apply=lambda f, logits, _, probed: f(there(probed), logits),
        fitter=lambda row: row[1], prober=lambda row: row[0],
        probe=lambda row, sample: row[0](sample.stages, sample.features), needs_head=True,
    ),
    Kind(
        "model", scores.FROM_MODEL,
        fit=lambda *_: None, apply=lambda _, __, ___, probed: there(probed)[:, 0],
        prober=lambda row: row, probe=_perturbed, needs_options=True,
    ),
    Kind(
        "model", scores.FROM_STEPS,
        fit=lambda row, m, *_: row[1](m.moments, dtype=_features(m).dtype),
        apply=lambda f, _, __, probed: f(there(probed)),
        fitter=lambda row: row[1], prober=lambda row: row[0], probe=lambda row, sample: _stepped(row[0], sample),
        needs_features=True, needs_options=True, train_signal=False,
    ),
    Kind(
        "model", scores.FROM_DROPOUT,
        fit=lambda row, *_: row, apply=lambda f, _, __, probed: f(there(probed).transpose(0, 1)),
        prober=lambda _: scores.mc_dropout.probe, probe=_dropped, signal="dropout", in_all=False, train_signal=False,
        own_text=True,
    ),
    Kind(
        "reconstruction", scores.FROM_RECONSTRUCTION,
        fit=lambda *_: None, apply=lambda _, __, ___, probed: there(probed)[:, 0],
        prober=lambda row: row, probe=_second_look, in_all=False,
    ),
    Kind(
        "gradients", scores.FROM_GRADIENTS,
        fit=lambda row, *_: row, apply=lambda f, _, __, probed: f(there(probed)),
        prober=lambda _: scores.gradients.probe, probe=_gradients, signal=GRADIENTS, train_signal=False, own_text=True,
    ),
    Kind(
        "gradients", scores.FROM_UNIFORM_GRADIENTS,
        fit=lambda row, *_: row, apply=lambda f, _, __, probed: f(there(probed)),
        prober=lambda _: scores.gradients.probe, probe=_uniform_gradients, train_signal=False, own_text=True,
    ),
    Kind(
        "meta", scores.FROM_COLUMNS,
        fit=_fit_meta, apply=lambda f, logits, _, probed: f(columns(there(probed), logits)),
        fitter=lambda row: row, prober=lambda _: scores.gradients.probe, probe=_gradients, signal=GRADIENTS,
        train_signal=False, learns_mistakes=True, own_text=True,
    ),
)  # fmt: skip
"""Every kind of score of a classifier, in the order in which scores are listed."""

_OF: Mapping[str, Kind] = {name: kind for kind in KINDS for name in kind.table}


def kind_of(name: str) -> Kind:
    """The kind of the score of that name."""
    return _OF[name]
