"""A guard as a function of tensors alone, which can be traced: what an exported graph computes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from caveat import evaluation, heads
from caveat.errors import OptionError
from caveat.guard import multilabel, regression
from caveat.guard.answer import answer
from caveat.guard.decision import BASELINE, Decision
from caveat.guard.entrance import Known, blanked, invalid_rows
from caveat.guard.multilabel import MultilabelDecision
from caveat.guard.plain_operations import Plain
from caveat.guard.portable import OUTPUTS
from caveat.guard.regression import RegressionDecision
from caveat.guard.threshold import Promise
from caveat.inputs import moved
from caveat.observations import glance_unread, outputs_unread
from caveat.posteriors.at_once import AtOnce
from caveat.posteriors.network import Predictive
from caveat.scoring import catalog

__all__ = ["ATTRIBUTES", "Graph", "MultilabelGraph", "RegressionGraph", "Traced"]

ATTRIBUTES = {"probabilities": "probs"}
"""What outputs are of a verdict, where that calls them otherwise."""


@runtime_checkable
class Traced(Protocol):
    """A guard of any task as a module of tensors, and what is said of it in the file."""

    model: nn.Module
    """The network; of a posterior all draws in one pass."""
    outputs: tuple[str, ...]
    """Names of what it gives."""

    @property
    def decision(self) -> "Operated":
        """What the guard knows beside its network."""
        ...

    @property
    def score(self) -> str:
        """Name of the guard's score."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What its metadata say that those of other tasks do not; texts as they are, all else as JSON."""
        ...

    def check(self) -> None:
        """Refuse a guard that no graph holds."""
        ...

    def plain(self) -> nn.Module | None:
        """The same with a score that every graph holds: where it fails too, the network is to blame. None of a guard
        whose scores all can be held."""
        ...


@runtime_checkable
class Operated(Known, Protocol):
    """What every decision has."""

    @property
    def promise(self) -> Promise:
        """Its threshold."""
        ...

    @property
    def reference(self) -> Tensor:
        """Ascending scores of held-out data."""
        ...

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the inputs, where they are columns of a table."""
        ...


class Graph(nn.Module):
    """Network, calibration, score and comparison with a threshold that is an input."""

    def __init__(self, model: nn.Module, decision: Decision, head: heads.HeadLayer | None) -> None:
        """Join them. The draws of a posterior are made one pass; `posteriors.at_once` says what is raised."""
        super().__init__()
        self.model = _at_once(model)
        self.decision = decision
        self.outputs = OUTPUTS["classification"] + (("epistemic",) if isinstance(self.model, AtOnce) else ())
        self._head = head
        evaluation.without_mode(self)

    @property
    def score(self) -> str:
        """Name of the guard's score."""
        return self.decision.score.name

    @property
    def about(self) -> Mapping[str, Any]:
        """Classes, calibration, and which answers to the reference were wrong."""
        made = self.decision
        wrong = made.reference_wrong.long().tolist()
        return {
            "task": "classification", "classes": json.dumps(made.classes), "calibration": made.calibration,
            "reference_wrong": json.dumps(wrong),
        }  # fmt: skip

    def check(self) -> None:
        """Refuse a guard that no graph holds.

        Raises
        ------
        OptionError
            If the score takes more than one forward pass.
        """
        made = self.decision
        why = ""
        if made.probe is not None and made.probe.graph:
            why = "takes gradients of the network, a backward pass that an ONNX graph does not hold"
        elif made.score.kind.family == "model":
            why = "asks the network again, and an ONNX graph holds one pass"
        if why:
            raise OptionError(
                f"score: {self.score} {why}: fit the guard with a score from logits, features or layers, such as "
                "energy, knn or gram"
            )

    def plain(self) -> nn.Module:
        """The same with maximum softmax probability."""
        simple = replace(self.decision, score=catalog.restored(BASELINE, None), probe=None)
        return Graph(self.model, simple, None)

    def forward(self, inputs: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The parts of the guard's verdicts, by `outputs`; an input whose logits are not finite abstains."""
        made = self.decision
        source = catalog.signal(made.score.name)
        probes = {} if made.probe is None else {source: made.probe}
        with Plain():
            safe, invalid = _safe(inputs, made, self.model)
            logits, features, probed = glance_unread(self.model, safe, self._head, probes, "inputs")
            invalid = invalid | ~torch.isfinite(logits).all(dim=1)
            return _parts(answer(made, logits, features, probed, invalid, threshold=threshold), self.outputs)


class RegressionGraph(nn.Module):
    """Network, interval, score and comparison with a threshold that is an input."""

    def __init__(self, model: nn.Module, decision: RegressionDecision) -> None:
        """Join them, as `Graph`."""
        super().__init__()
        self.model = _at_once(model)
        self.decision = decision
        draws = self.model.count if isinstance(self.model, AtOnce) else 1
        self.outputs = OUTPUTS["regression"] + regression.told(decision, draws)
        self._units = regression.units_of(model)
        evaluation.without_mode(self)

    @property
    def score(self) -> str:
        """Name of the guard's score."""
        return self.decision.score

    @property
    def about(self) -> Mapping[str, Any]:
        """What its network's outputs mean, and the error of its intervals."""
        made = self.decision
        return {"task": "regression", "form": made.form, "error": json.dumps(made.error)}

    def check(self) -> None:
        """All of its scores can be held."""

    def plain(self) -> None:
        """None: a score is a formula of what the network predicts."""

    def forward(self, inputs: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The parts of the guard's verdicts, by `outputs`; an input whose outputs mean nothing abstains."""
        made = self.decision
        with Plain():
            safe, invalid = _safe(inputs, made, self.model)
            values = outputs_unread(self.model, safe, "inputs")
            return _parts(regression.answer(made, values, invalid, self._units, threshold=threshold), self.outputs)


class MultilabelGraph(nn.Module):
    """Network, temperatures, label sets, score and comparison with a threshold that is an input."""

    def __init__(self, model: nn.Module, decision: MultilabelDecision) -> None:
        """Join them, as `Graph`."""
        super().__init__()
        self.model = _at_once(model)
        self.decision = decision
        self.outputs = OUTPUTS["multilabel"]
        evaluation.without_mode(self)

    @property
    def score(self) -> str:
        """Name of the guard's score."""
        return self.decision.score

    @property
    def about(self) -> Mapping[str, Any]:
        """The names of the labels, from which probability on each is present, and the share that is missed."""
        made = self.decision
        return {
            "task": "multilabel", "classes": json.dumps(made.names), "calibration": "per_label",
            "label_threshold": json.dumps(made.label_threshold), "error": json.dumps(made.error),
        }  # fmt: skip

    def check(self) -> None:
        """All of its scores can be held."""

    def plain(self) -> None:
        """None: a score is a formula of the logits."""

    def forward(self, inputs: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """The parts of the guard's verdicts, by `outputs`; an input whose logits are not finite abstains."""
        made = self.decision
        with Plain():
            safe, invalid = _safe(inputs, made, self.model)
            logits = outputs_unread(self.model, safe, "inputs")
            return _parts(multilabel.answer(made, logits, invalid, threshold=threshold), self.outputs)


def _at_once(model: nn.Module) -> nn.Module:
    return AtOnce(model) if isinstance(model, Predictive) else model


def _safe(inputs: Tensor, made: Known, model: nn.Module) -> tuple[Tensor, Tensor]:
    """What the network can be asked, and which of it is no answer to what was given."""
    invalid = invalid_rows(inputs, made.shape, made.largest)
    return moved(blanked(inputs, invalid), model), invalid


def _parts(verdict: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    return tuple(getattr(verdict, ATTRIBUTES.get(name, name)) for name in names)
