"""Metrics of OOD detection, pixel by pixel: streamed over a set of street scenes."""

from collections.abc import Callable

import torch
from torch import Tensor

from caveat.audits.dense.counts import Counts, groups
from caveat.data.scenes import Scenes
from caveat.errors import DataError
from caveat.metrics import calibration, proper, ranking
from caveat.metrics.tally import mirror, quantile_edges
from caveat.sampling import evenly
from caveat.scores.logits import msp
from caveat.studies.kit.common import detection

__all__ = ["Answer", "measure"]

Answer = Callable[[Tensor], Tensor]
"""From pictures `(n, 3, h, w)` to logits `(n, c, h, w)`."""


def measure(answer: Answer, scenes: Scenes, *, per_image: bool = False) -> dict[str, float]:
    """AUC, AUPR and FPR95 in % (OOD = positive), calibration error and accuracy, over all pixels that are not void.

    The score is one minus the largest probability. `FPR95`: in-distribution pixels rejected where 95 % of the OOD ones
    are. `per_image`: the mean over the pictures with an OOD pixel, as the code of the anomaly benchmark has it.
    Of all pixels only counts in 4,096 bins are stored, whose edges come from 20 pictures.
    """
    counts = Counts(_edges(answer, scenes), ("ood",))
    kinds = [torch.arange(len(scenes.classes), scenes.void)]
    both, inside_bins, each = None, None, []
    nll = pixels = 0.0
    for inputs, labels in scenes:
        logits, truth = _flat(answer(inputs)), labels.flatten()
        group = groups(truth, logits.argmax(1), scenes.void, kinds)
        score, inside = msp(logits), (group == 0) | (group == 1)
        counts.add(score, group)
        probs = logits.double().softmax(1)
        right = torch.where(group == 0, truth, (probs.argmax(1) + 1) % probs.shape[1])  # OOD: always wrong
        labelled = group >= 0
        both = _merged(both, calibration.confidence_bins(probs[labelled], right[labelled]))
        inside_bins = _merged(inside_bins, calibration.confidence_bins(probs[inside], truth[inside]))
        nll += float(proper.nll_of_each(logits[inside], truth[inside]).sum())
        pixels += float(inside.sum())
        if per_image:
            each += _per_image(score.reshape(len(inputs), -1), group.reshape(len(inputs), -1))
    if both is None or inside_bins is None:
        raise DataError(f"{scenes.name}: no scenes")
    found = counts.tally("ood")
    wrong = counts.tally("wrong")
    figures = {
        "AUC": 100 * float(ranking.auroc(found)),
        "AUPR": 100 * float(ranking.aupr_out(found)),
        "FPR95": 100 * float(ranking.fpr_at_tpr(mirror(found))),
    }
    if per_image:
        figures = {name: sum(one[name] for one in each) / len(each) for name in figures}
    return figures | {
        "ECE, ID + OOD": float(calibration.ece(both)),
        "ECE": float(calibration.ece(inside_bins)),
        "accuracy": 100 * float(wrong.negative.sum() / (wrong.negative.sum() + wrong.positive.sum())),
        "NLL": nll / pixels,
        "ood": 100 * float(found.positive.sum() / (found.positive.sum() + found.negative.sum())),
    }


def _edges(answer: Answer, scenes: Scenes) -> Tensor:
    chosen = evenly(len(scenes), 20)
    return quantile_edges(torch.cat([msp(_flat(answer(scenes.take([i])[0])))[::7] for i in chosen.tolist()]), bins=4096)


def _flat(logits: Tensor) -> Tensor:
    return logits.movedim(1, -1).flatten(0, 2).cpu()


def _merged(before: calibration.Bins | None, found: calibration.Bins) -> calibration.Bins:
    return found if before is None else calibration.merge(before, found)


def _per_image(scores: Tensor, group: Tensor) -> list[dict[str, float]]:
    figures: list[dict[str, float]] = []
    for score, kind in zip(scores, group, strict=True):
        inside, ood = score[(kind == 0) | (kind == 1)], score[kind == 2]
        if len(inside) and len(ood):
            one = detection(inside, ood)
            figures.append({"AUC": one["auroc"], "AUPR": one["aupr_out"], "FPR95": one["fpr_out"]})
    return figures
