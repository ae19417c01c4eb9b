"""A multi-label network that answers with the labels that an input has, or abstains where it is not to be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caveat import devices
from caveat.batches import Data
from caveat.calibration import per_label, risk_control
from caveat.calibration.per_label import PerLabel
from caveat.calibration.risk_control import RiskControl
from caveat.errors import DataError, ModelError, OptionError, known_name
from caveat.guard.decision import REFERENCE, halved
from caveat.guard.entrance import check_apart, outputs
from caveat.guard.likeness import answers
from caveat.guard.threshold import ROUNDING, Promise, keeping, p_values
from caveat.guard.verdict import ACCEPTED, INVALID, UNREADABLE, UNTRUSTED
from caveat.inputs import check_same_classes, check_same_units, class_names, largest, opened
from caveat.models.adapter import Adapted, adapted
from caveat.observations import Outputs, observe_outputs
from caveat.posteriors.network import Predictive
from caveat.sampling import evenly, spread
from caveat.scores import FROM_SIGMOIDS
from caveat.scores.multilabel import mean_logits
from caveat.weights import state

__all__ = [
    "MultilabelDecision",
    "MultilabelGuard",
    "MultilabelVerdict",
    "answer",
    "check_labels",
    "controlled",
    "decide",
]

AUTO = "auto"
SHOWN = 5
"""Labels that a sentence names."""


@dataclass(frozen=True)
class MultilabelVerdict:
    """One row per input, one column per label."""

    accepted: Bool[Tensor, " n"]
    labels: Bool[Tensor, "n c"]
    """The labels of accepted inputs: of those that an accepted input truly has, a share of `error` at most is missed on
    average. None where the guard abstains."""
    predicted: Bool[Tensor, "n c"]
    """The same, whether the input is accepted or not."""
    probs: Float[Tensor, "n c"]
    """Calibrated probabilities; NaN for invalid inputs, like all that follows."""
    score: Float[Tensor, " n"]
    """Higher = less trustworthy."""
    p_value: Float[Tensor, " n"]
    """Share of held-out in-distribution inputs that are as little trustworthy or less, in (0, 1]."""
    reason: Int[Tensor, " n"]
    """Index into `guard.verdict.REASONS`."""
    error: float
    threshold: float
    """Of the score."""
    label_threshold: float
    """Of the probabilities: a label with at least this one is present."""
    score_name: str
    names: tuple[str, ...]
    """Of the labels."""

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.accepted)

    def explain(self, row: int) -> str:
        """Why this input was accepted or refused, in a sentence a person can read."""
        if int(self.reason[row]) == INVALID:
            return UNREADABLE
        accepted = bool(self.accepted[row])
        found = [self.names[k] for k in self.predicted[row].nonzero().flatten().tolist()]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return (
            f"{'accepted' if accepted else 'abstained'}: labels {', '.join(found[:SHOWN]) or 'none'}{more} "
            f"(probability of at least {self.label_threshold:.4g}), {self.score_name} score "
            f"{float(self.score[row]):.4g} {'at or below' if accepted else 'above'} the threshold {self.threshold:.4g}"
        )


@dataclass(frozen=True)
class MultilabelDecision:
    """How the predictions of a multi-label network are accepted or refused, and from which probability on labels are
    present.
    """

    score: str
    promise: Promise
    reference: Float[Tensor, " m"]
    """Ascending scores of held-out data."""
    calibrated: PerLabel
    """Fitted on the same half as the threshold of the score, which does not depend on it."""
    control: RiskControl
    """Fitted on the accepted ones of the other half."""
    error: float
    scores: Float[Tensor, " k"]
    """Of that half; with the next two another threshold gets its own label sets."""
    true_probs: Float[Tensor, " t"]
    """Calibrated probabilities of that half's true labels."""
    true_samples: Int[Tensor, " t"]
    """To which sample each belongs."""
    names: tuple[str, ...]
    shape: tuple[int, ...]
    largest: float | None
    why: str
    dtype: str = "float32"
    columns: tuple[str, ...] | None = None
    """Names of the inputs, where they are columns of a table."""

    def tuned(self, *, keep: float) -> "MultilabelDecision":
        """The same with another share kept, and the label sets fitted on what is then accepted.

        Raises
        ------
        OptionError
            If `keep` is not in (0, 1), or there are too few held-out samples for it.
        """
        held = keeping(self.reference, keep, self.promise.rounding)
        control = controlled(self.scores, self.true_probs, self.true_samples, held.threshold, self.error)
        return replace(self, promise=held, control=control)

    @property
    def label_threshold(self) -> float:
        """From which probability on a label is present."""
        return float(self.control.threshold)

    def probs(self, logits: Float[Tensor, "s n c"]) -> Float[Tensor, "n c"]:
        """Calibrated probabilities."""
        return torch.sigmoid(self.calibrated(mean_logits(logits)))


def score_of(name: str, logits: Tensor) -> Tensor:
    """A score of each input.

    Raises
    ------
    OptionError
        If one network does not tell it.
    """
    values = FROM_SIGMOIDS[name](logits)
    if values is None:
        raise OptionError(f"score: {name} is the disagreement of several networks, and this is one; take another")
    return values


def _leading(labels: Tensor) -> tuple[str, str]:
    """The score that a guard takes by itself, and why: known from in-distribution data alone."""
    bare = int((~labels.any(dim=1)).sum())
    if bare:
        return "binary_entropy", f"{bare} held-out samples have no label, which joint energy would take for OOD inputs"
    return "joint_energy", "every held-out sample has a label"


def controlled(scores: Tensor, probs: Tensor, samples: Tensor, threshold: float, error: float) -> RiskControl:
    """The label sets of what a threshold of the score accepts, from the true labels' probabilities and samples.

    Raises
    ------
    OptionError
        If there are too few samples.
    """
    kept = (scores <= threshold)[samples]
    count, need = len(samples[kept].unique()), risk_control.fewest(error)
    if count < need:
        raise OptionError(
            f"held_out: {count} of its samples are left to promise on that at most {error:.0%} of the labels are "
            f"missed; expected at least {need} that have a label: give about {3 * need} samples"
        )
    found = risk_control.of_true(probs[kept], samples[kept], error=error).threshold
    return RiskControl(found * (1 - ROUNDING))  # it is a probability itself, which moves with the size of its batch


def answer(
    made: MultilabelDecision, logits: Float[Tensor, "s n c"], invalid: Tensor, *, threshold: Tensor | None = None
) -> MultilabelVerdict:
    """From what a network gave for a batch to verdicts: a pure function of tensors, which export stands on too.

    `invalid` are inputs that could not be looked at `(n,)`; `threshold` is another one than the promise's, `()`.
    """
    score = score_of(made.score, logits)
    probs = made.probs(logits)
    invalid = invalid | ~torch.isfinite(score) | ~torch.isfinite(logits).all(dim=2).all(dim=0)
    accepted = (score <= (made.promise.threshold if threshold is None else threshold)) & ~invalid
    predicted = made.control(probs) & ~invalid[:, None]
    return MultilabelVerdict(
        accepted, predicted & accepted[:, None], predicted, probs.masked_fill(invalid[:, None], torch.nan),
        score.masked_fill(invalid, torch.nan),
        p_values(made.reference, score).masked_fill(invalid, torch.nan),
        torch.where(invalid, INVALID, torch.where(accepted, ACCEPTED, UNTRUSTED)),
        made.error, made.promise.threshold, made.label_threshold, made.score, made.names,
    )  # fmt: skip


def decide(  # noqa: PLR0913  # the signature is the configuration
    logits: Float[Tensor, "s n c"],
    labels: Bool[Tensor, "n c"],
    *,
    score: str = AUTO,
    keep: float = 0.95,
    error: float = 0.1,
    seed: int = 0,
    names: Sequence[str] | None = None,
    shape: tuple[int, ...] = (),
    limit: float | None = None,
    dtype: str = "float32",
    columns: tuple[str, ...] | None = None,
) -> MultilabelDecision:
    """A decision from logits of held-out data that the network was not trained on, and their labels.

    Half of them, drawn by `seed`, sets the threshold of the score: a new in-distribution input is accepted with
    probability at least `keep`. On those of the other half that it accepts, the label sets are fitted: of the labels
    that an accepted input has, a share of at most `error` is missed in expectation (conformal risk control). Inputs
    without labels do not count there: nothing can be missed.

    Raises
    ------
    OptionError
        If a name is in no table, a share is not in (0, 1), or there are too few samples for either promise.
    """
    name, why = _leading(labels) if score == AUTO else (known_name("score", score, FROM_SIGMOIDS), "named by the user")
    values = score_of(name, logits)
    first, second = halved(len(values), seed)
    ordered = values[first].sort().values
    thinned = ordered[evenly(len(ordered), REFERENCE)]
    held = keeping(thinned, keep)
    merged = mean_logits(logits)
    calibrated = per_label.fit(merged[first], labels[first])
    rows = second[spread(len(second), REFERENCE)]
    probs, true = torch.sigmoid(calibrated(merged[rows])), labels[rows]
    found, samples = probs[true], true.nonzero()[:, 0]
    control = controlled(values[rows], found, samples, held.threshold, error)
    numbered = tuple(names) if names is not None else tuple(map(str, range(labels.shape[1])))
    return MultilabelDecision(
        name, held, thinned, calibrated, control, error, values[rows], found, samples, numbered, shape, limit, why,
        dtype, columns,
    )  # fmt: skip


def check_labels(seen: Outputs, name: str) -> Bool[Tensor, "n c"]:
    """The labels of a set, one for each of a network's outputs, which are logits.

    Raises
    ------
    DataError
        If there are none, or not one for each output.
    ModelError
        If the outputs are probabilities.
    """
    outputs = seen.values.shape[2]
    if not seen.labels.shape[1]:
        raise DataError(f"{name}: its samples have no labels: give batches (inputs, labels) with labels (n, {outputs})")
    if seen.labels.shape[1] != outputs:
        raise DataError(
            f"{name}: expected labels (n, {outputs}), one column for each of the model's {outputs} outputs, got "
            f"(n, {seen.labels.shape[1]})"
        )
    if bool(((seen.values >= 0) & (seen.values <= 1)).all()):
        raise ModelError(
            "model: all of its outputs lie in [0, 1]: probabilities, after a sigmoid, where logits are meant; give the "
            "network without its last sigmoid"
        )
    return seen.labels == 1


class MultilabelGuard(nn.Module):
    """Puts a decision in front of a multi-label network; called on inputs it gives a `MultilabelVerdict`."""

    def __init__(self, model: nn.Module, decision: MultilabelDecision) -> None:
        super().__init__()
        self.model = model
        self.decision = decision
        self.eval()

    @classmethod
    def fit(  # noqa: PLR0913  # the signature is the configuration
        cls,
        model: nn.Module,
        held_out: Data,
        *,
        train: Data | None = None,
        score: str = AUTO,
        keep: float = 0.95,
        error: float = 0.1,
        seed: int = 0,
        unpack: Callable[[Any], Any] | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
    ) -> "MultilabelGuard":
        """Fit a guard on held-out in-distribution data; see `decide` for what is promised.

        Parameters
        ----------
        model
            A network that gives a logit for each label, `(n, c)`, or an ensemble of them (`posteriors.Predictive`).
        held_out
            Data that the network was not trained on, labels `(n, c)` of 0 and 1.
        train
            Training data, to be sure that nothing of it is in `held_out`.
        score
            A name of `scores.FROM_SIGMOIDS`, or `auto`: joint energy where every sample has a label, else binary
            entropy.
        keep, error
            Shares in (0, 1).

        Raises
        ------
        DataError
            If a set is empty, labels are missing, or samples of `train` are in `held_out` too.
        ModelError
            If the model gives probabilities, or not a logit for each label.
        OptionError
            As `decide`.
        """
        one = opened(held_out, "held_out", unpack, target="several")
        known = None if train is None else opened(train, "train", unpack, target="several")
        check_same_classes(one, known)
        check_same_units(one, known)
        with devices.running(model, device, dtype) as place:
            model = adapted(model, one.first[0], name="held_out", several=True)
            seen = observe_outputs(model, one.batches, name="held_out", target="several")
            labels = check_labels(seen, "held_out")
            if known is not None:
                check_apart(seen, observe_outputs(model, known.batches, name="train", target="several"))
        made = decide(
            seen.values, labels, score=score, keep=keep, error=error, seed=seed,
            names=class_names(one, labels.shape[1]), shape=one.shape, limit=largest(one), dtype=place.autocast,
            columns=getattr(one.batches, "columns", None),
        )  # fmt: skip
        return cls(model, made)

    def forward(self, inputs: Any) -> MultilabelVerdict:
        """Answer or abstain for every input `(n, ...)`.

        Inputs that hold NaN or infinity abstain, and so do those 50 times as large as what the guard was fitted on.

        Raises
        ------
        ModelError
            If the model is in training mode, or the guard is to be traced: see `export`.
        OptionError
            If the inputs have another shape than those the guard was fitted on.
        """
        logits, invalid = outputs(self.model, self.decision, inputs)
        return answer(self.decision, logits, invalid)

    def export(self, path: str | Path, *, example: Tensor | None = None) -> dict[str, str]:
        """Write network, calibration, label sets, score and threshold as one ONNX graph, as `Guard.export` does."""
        from caveat.guard import onnx_file
        from caveat.guard.graph import MultilabelGraph

        here = onnx_file.on_cpu(self)
        return onnx_file.write(here, MultilabelGraph(here.model, here.decision), Path(path), example=example)

    def card(self) -> str:
        """A model card in Markdown; one that names the files too: `caveat guard card`."""
        from caveat.guard import card

        return card.of_multilabel(self.decision)

    def tuned(self, *, keep: float) -> "MultilabelGuard":
        """The same guard with another share kept; calibration and score stay, the label sets are fitted on what is
        then accepted.
        """
        return MultilabelGuard(self.model, self.decision.tuned(keep=keep))

    def save(self, folder: str | Path, *, model: str = "") -> None:
        """Write the guard and the network's weights to `folder`.

        `model` says, for people, how the network is made: `package.module:callable`.

        Raises
        ------
        DataError
            If the folder holds anything that is no guard.
        """
        from caveat.guard import multilabel_artefact

        multilabel_artefact.save(
            self.decision, state(self.model), folder, model=model,
            posterior=self.model.description if isinstance(self.model, Predictive) else None,
            form=self.model.description if isinstance(self.model, Adapted) else None,
            answers=answers(self.model, self.decision.shape, self.decision.largest),
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module) -> "MultilabelGuard":
        """Read a guard around `model`, a network of the architecture it was fitted for; its weights are loaded too.

        Raises
        ------
        DataError
            If a file is missing, damaged or altered.
        ModelError
            If the weights do not fit the model.
        """
        from caveat.guard import multilabel_artefact

        return multilabel_artefact.load(folder, model)
