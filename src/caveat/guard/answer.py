"""From what was observed of a batch to verdicts: a pure function of tensors, which export and service stand on too."""

from collections.abc import Mapping

import torch
from torch import Tensor

from caveat import scores
from caveat.guard.decision import Decision
from caveat.guard.threshold import p_values
from caveat.guard.verdict import ACCEPTED, INVALID, UNTRUSTED, Verdict
from caveat.observations import DRAWS
from caveat.scoring import catalog

__all__ = ["answer"]


def answer(
    decision: Decision,
    logits: Tensor,
    features: Tensor | None,
    probed: Mapping[str, Tensor],
    invalid: Tensor,
    *,
    threshold: Tensor | None = None,
) -> Verdict:
    """Answer or abstain for every sample of a batch.

    Parameters
    ----------
    decision
        What a guard knows beside the network.
    logits, features, probed
        What one pass over the batch gave, `(n, c)`, `(n, d)` and by name of the probe.
    invalid
        Inputs that could not be looked at `(n,)`: they abstain in any case.
    threshold
        Another one than the promise's, `()`: that which an exported graph is given.
    """
    score = decision.score.apply(logits, features, probed.get(catalog.signal(decision.score.name))).double()
    log_probs = decision.calibrated(logits).double().log_softmax(dim=1)
    probs = log_probs.exp()
    invalid = invalid | ~torch.isfinite(score)
    accepted = (
        score <= (decision.promise.threshold if threshold is None else threshold)
    ) & ~invalid  # NaN is below nothing
    confidence, predicted = probs.max(dim=1)
    reference = decision.reference.to(score.device)
    finite_log = log_probs.clamp_min(torch.finfo(torch.float64).min)
    aleatoric, epistemic = -(probs * finite_log).sum(dim=1), None
    if DRAWS in probed:
        draws = probed[DRAWS].transpose(0, 1).double()
        aleatoric = scores.draws.expected_entropy(draws)
        epistemic = _blank(scores.draws.mutual_information(draws), invalid)
    return Verdict(
        label=torch.where(accepted, predicted, -1),
        accepted=accepted,
        predicted=predicted,
        probs=_blank(probs, invalid),
        confidence=_blank(confidence, invalid),
        score=_blank(score, invalid),
        p_value=_blank(p_values(reference, score), invalid),
        reason=torch.where(invalid, INVALID, torch.where(accepted, ACCEPTED, UNTRUSTED)),
        aleatoric=_blank(aleatoric, invalid),
        epistemic=epistemic,
        threshold=decision.promise.threshold,
        score_name=decision.score.name,
        classes=decision.classes,
    )


def _blank(values: Tensor, invalid: Tensor) -> Tensor:
    """NaN where nothing can be said."""
    return values.masked_fill(invalid.view(-1, *[1] * (values.ndim - 1)), torch.nan)
