"""A network that answers, or abstains: calibration, score and threshold in one module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from caveat import heads, scores
from caveat.errors import ModelError, OptionError
from caveat.guard import decision
from caveat.guard.decision import Decision
from caveat.guard.verdict import ACCEPTED, INVALID, UNTRUSTED, Verdict
from caveat.observations import DRAWS, check_eval, glance, observe
from caveat.scoring import catalog
from caveat.scoring import outliers as noise
from caveat.scoring import probes as probing
from caveat.types import Batches, Drawing

__all__ = ["Guard"]


class Guard(nn.Module):
    """Puts a decision in front of a model; called on inputs it gives a `Verdict`.

    A module as any other: it moves to a device with everything it has fitted. Made by `Guard.fit` or `guard.load`.
    """

    def __init__(self, model: nn.Module, decision: Decision) -> None:
        """Join a model and a decision fitted for it.

        Raises
        ------
        ModelError
            If the model has not the head that the decision was fitted with.
        """
        super().__init__()
        self.model = model
        self.decision = decision
        self._head: heads.HeadLayer | None = None
        if decision.head:
            if decision.head not in dict(model.named_modules()):
                raise ModelError(
                    f"model: the guard takes its features before {decision.head!r}; the model has no such layer"
                )
            no_weights = (torch.empty(0, 0), torch.empty(0))  # the score has its own copy where it needs them
            self._head = heads.HeadLayer(decision.head, decision.pooled, no_weights)
        self.eval()

    @classmethod
    def fit(  # noqa: PLR0913  # the signature is the configuration
        cls,
        model: nn.Module,
        known: Batches,
        *,
        fit: Batches | None = None,
        score: str = "auto",
        calibration: str = "temperature",
        keep: float | None = None,
        max_error: float | None = None,
        head: str | None = None,
        seed: int = 0,
        outliers: Batches | None = None,
        against: Batches | None = None,
    ) -> "Guard":
        """Fit a guard on in-distribution data that the model was not trained on; `fit` may hold training data for the
        score.

        `outliers`: auxiliary OOD inputs, for a meta classifier; by default 200 of uniform noise.

        `against`: instead of a promise, inputs that stand for OOD ones, as `guard.pseudo_unknown` makes them.

        See `guard.decision.fit` for the options, what is promised and what is raised.
        """
        check_eval(model)
        families = catalog.families()
        names = catalog.resolve(None if score == "auto" else [score], draws=isinstance(model, Drawing))
        first_inputs, first_labels = next(iter(fit or known), (torch.empty(0), torch.empty(0)))
        layer = None
        if len(first_inputs) and any(families[name] not in ("logits", "draws") for name in names):
            anchor = next(model.parameters(), torch.empty(0))
            layer = heads.find(model, first_inputs[:2].to(anchor.device, anchor.dtype), name=head)
        probes = {}
        if len(names) == 1 and families[names[0]] not in ("logits", "draws", "features", "head"):
            probes = probing.probes(names, model, first_inputs, first_labels, layer)
        seen = observe(model, known, features=layer is not None, head=layer, probes=probes, name="known")
        training = None
        if fit is not None and "gradients" not in probes:  # nothing is fitted on the gradients of training data
            training = observe(model, fit, features=layer is not None, head=layer, probes=probes, name="fit")
        foreign = None
        if len(names) == 1 and families[names[0]] == "meta":
            drawn = noise.like(first_inputs, torch.Generator().manual_seed(seed)) if outliers is None else outliers
            foreign = observe(model, drawn, features=False, probes=probes, name="outliers")
        stand_in = None
        if against is not None:
            stand_in = observe(model, against, features=layer is not None, head=layer, probes=probes, name="against")
        made = decision.fit(
            seen, training, layer, score=score, calibration=calibration, keep=keep, max_error=max_error,
            probe=next(iter(probes.values()), None), classes=tuple(getattr(known, "classes", None) or ()),
            shape=tuple(first_inputs.shape[1:]), seed=seed, outliers=foreign,
            against=stand_in,
        )  # fmt: skip
        return cls(model, made)

    def forward(self, inputs: Tensor) -> Verdict:
        """Answer or abstain for every input `(n, ...)`; NaN or infinite inputs abstain.

        Raises
        ------
        ModelError
            If the model is in training mode or gives no logits.
        OptionError
            If the inputs have another shape than those the guard was fitted on.
        """
        check_eval(self.model)
        shape = self.decision.shape
        if shape and tuple(inputs.shape[1:]) != shape:
            raise OptionError(f"inputs: expected shape (n, {', '.join(map(str, shape))}), got {tuple(inputs.shape)}")
        bad = ~torch.isfinite(inputs.flatten(1)).all(dim=1)
        # what can't be looked at is replaced, so that the others are answered; it abstains in any case
        safe = torch.where(bad.view(-1, *[1] * (inputs.ndim - 1)), torch.zeros_like(inputs), inputs)
        source = catalog.signal(self.decision.score.name)
        probes = {source: self.decision.probe} if self.decision.probe is not None else {}
        logits, features, probed = glance(self.model, safe, self._head, probes, "inputs")
        score = self.decision.score.apply(logits, features, probed.get(source))
        return self._judge(logits, score, bad, probed.get(DRAWS))

    def _judge(self, logits: Tensor, score: Tensor, bad: Tensor, draws: Tensor | None) -> Verdict:
        chosen = self.decision
        log_probs = chosen.calibrated(logits).double().log_softmax(dim=1)
        probs = log_probs.exp()
        wide = score.double()
        invalid = bad | ~torch.isfinite(wide)
        accepted = (wide <= chosen.promise.threshold) & ~invalid  # NaN is below nothing
        confidence, predicted = probs.max(dim=1)
        reference = chosen.reference.to(wide.device)
        above = len(reference) - torch.searchsorted(reference, wide.nan_to_num(torch.inf))
        reason = torch.where(accepted, ACCEPTED, UNTRUSTED)
        finite_log = log_probs.clamp_min(torch.finfo(torch.float64).min)
        aleatoric, epistemic = -(probs * finite_log).sum(dim=1), None
        if draws is not None:
            many = draws.transpose(0, 1).double()
            aleatoric = scores.draws.expected_entropy(many)
            epistemic = _blank(scores.draws.mutual_information(many), invalid)
        return Verdict(
            label=torch.where(accepted, predicted, -1),
            accepted=accepted,
            predicted=predicted,
            probs=_blank(probs, invalid),
            confidence=_blank(confidence, invalid),
            score=_blank(wide, invalid),
            p_value=_blank((1 + above).double() / (1 + len(reference)), invalid),
            reason=torch.where(invalid, INVALID, reason),
            aleatoric=_blank(aleatoric, invalid),
            epistemic=epistemic,
            threshold=chosen.promise.threshold,
            score_name=chosen.score.name,
            classes=chosen.classes,
        )

    def tuned(self, *, keep: float | None = None, max_error: float | None = None) -> "Guard":
        """The same guard at another operating point; nothing is fitted again. See `Decision.tuned`."""
        return Guard(self.model, self.decision.tuned(keep=keep, max_error=max_error))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Guard":
        """What `.to(...)` and `.float()` call: the fitted tensors go along."""
        super()._apply(fn, recurse)
        self.decision = decision.mapped(self.decision, fn)
        return self


def _blank(values: Tensor, invalid: Tensor) -> Tensor:
    """NaN where nothing can be said."""
    mask = invalid.view(-1, *[1] * (values.ndim - 1))
    return values.masked_fill(mask, torch.nan)
