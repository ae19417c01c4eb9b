"""From logits and labels to the numbers of a multi-label record."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from caveat.audits.judge import estimate, mean, ranked, share
from caveat.calibration import risk_control
from caveat.metrics import calibration, multilabel, ranking
from caveat.metrics.calibration import Bins
from caveat.metrics.interval import interval_of_ece
from caveat.metrics.tally import tally
from caveat.records.multilabel import LabelSets, OneLabel, Probabilities
from caveat.records.record import Estimate, Reliability

__all__ = ["found_share", "label_sets", "labels", "overall", "probabilities"]


def labels(
    logits: Tensor, scaled: Tensor, truth: Tensor, *, names: Sequence[str], temperature: Tensor, threshold: float,
    seed: int,
) -> list[OneLabel]:  # fmt: skip
    """One row for each label; `scaled` are the logits after temperature scaling."""
    probs = torch.sigmoid(logits)
    said = probs >= threshold
    f1 = multilabel.f1(said, truth).tolist()
    before, after = (multilabel.label_bins(p, truth) for p in (probs, torch.sigmoid(scaled)))
    rows: list[OneLabel] = []
    for k, name in enumerate(names):
        here, yes = truth[:, k], said[:, k]
        both = bool(here.any()) and not bool(here.all())
        counted = tally(logits[:, k], here)
        rows.append(OneLabel(
            name=name, prevalence=share(here),
            auroc=ranked(ranking.auroc, counted) if both else None,
            average_precision=ranked(ranking.aupr_out, counted) if both else None,
            accuracy=share(yes == here),
            precision=share(here[yes]) if bool(yes.any()) else None,
            recall=share(yes[here]) if bool(here.any()) else None,
            f1=f1[k], ece=_ece(_row(before, k), seed), ece_scaled=_ece(_row(after, k), seed),
            temperature=float(temperature[k]),
        ))  # fmt: skip
    return rows


def overall(logits: Tensor, truth: Tensor, threshold: float) -> dict[str, float | Estimate | None]:
    """The figures of all labels together, by their names in the record."""
    probs = torch.sigmoid(logits)
    said = probs >= threshold
    known = truth.any(dim=0) & ~truth.all(dim=0)
    return {
        "labels_of_each": float(truth.sum(dim=1).double().mean()),
        "f1_micro": float(multilabel.f1_micro(said, truth)),
        "f1_macro": float(multilabel.f1_macro(said, truth)),
        "hamming_loss": mean(multilabel.hamming_loss_of_each(said, truth)),
        "subset_accuracy": share((said == truth).all(dim=1)),
        "mean_average_precision": float(multilabel.mean_average_precision(logits, truth)) if known.any() else None,
        "label_ranking_average_precision": mean(multilabel.label_ranking_average_precision_of_each(logits, truth)),
        "ranking_loss": mean(multilabel.ranking_loss_of_each(logits, truth)),
        "coverage_error": mean(multilabel.coverage_error_of_each(logits, truth)),
    }


def probabilities(versions: Mapping[str, Tensor], truth: Tensor, *, seed: int) -> list[Probabilities]:
    """How well calibrated each version of the logits is."""
    rows: list[Probabilities] = []
    for name, logits in versions.items():
        probs = torch.sigmoid(logits)
        each = multilabel.label_bins(probs, truth)
        pooled = Bins(each.count.sum(dim=0), each.confidence.sum(dim=0), each.hits.sum(dim=0))
        anyone = multilabel.any_label_bins(probs, truth)
        entropy = functional.binary_cross_entropy_with_logits(logits, truth.to(logits), reduction="none")
        rows.append(Probabilities.model_validate({
            "name": name, "cross_entropy": mean(entropy.mean(dim=1)), "ece": float(calibration.ece(pooled)),
            "ece_labelwise": float(calibration.ece(each).mean()), "ece_any": _ece(anyone, seed),
            "reliability": _diagram(pooled), "reliability_any": _diagram(anyone),
        }))  # fmt: skip
    return rows


def label_sets(
    held_out: tuple[Tensor, Tensor], judged: Mapping[str, Tensor], truth: Tensor, error: float
) -> LabelSets | None:
    """Conformal risk control on the calibration split's logits and labels; None if it has no labels."""
    logits, known = held_out
    if not bool(known.any()) or not bool(truth.any()):
        return None
    control = risk_control.fit(torch.sigmoid(logits), known, error=error)
    sets = {name: control(torch.sigmoid(values)) for name, values in judged.items()}
    return LabelSets(
        error=error, threshold=float(control.threshold), found=found_share(sets["test"], truth),
        size={name: float(found.sum(dim=1).double().mean()) for name, found in sets.items()},
        fitted_on=int(known.any(dim=1).sum()), judged_on=int(truth.any(dim=1).sum()),
    )  # fmt: skip


def found_share(sets: Tensor, truth: Tensor) -> Estimate:
    """Mean share of a sample's labels that its set holds, of samples that have one; there must be one."""
    missed = mean(multilabel.missed_share_of_each(sets, truth)[truth.any(dim=1)])
    low, high = (None if end is None else max(0.0, 1 - end) for end in (missed.high, missed.low))
    return Estimate(value=1 - missed.value, low=low, high=high)


def _row(bins: Bins, k: int) -> Bins:
    return Bins(bins.count[k], bins.confidence[k], bins.hits[k])


def _ece(bins: Bins, seed: int) -> Estimate:
    found = interval_of_ece(bins, generator=torch.Generator().manual_seed(seed))
    return estimate(found.value, found)


def _diagram(bins: Bins) -> Reliability:
    found = calibration.reliability(bins)
    return Reliability(
        confidence=found.confidence.tolist(), accuracy=found.accuracy.tolist(), share=found.share.tolist()
    )
