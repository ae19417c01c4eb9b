"""Pictures and charts of TRADI on street scenes: what each method predicts for the scenes with most OOD pixels."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from caveat import posteriors
from caveat.audits.dense.audit import audit_dense
from caveat.data.scenes import Scenes
from caveat.posteriors import Dropout, Ensemble
from caveat.records.findings import Figure, Shot
from caveat.studies.kit import plots

__all__ = ["shots", "trade_off"]


def trade_off(name: str, found: Mapping[str, Mapping[str, float]]) -> Figure:
    """AUC against FPR95 of each method on one set."""
    rows = [{"method": method, "AUC": figures["AUC"], "FPR95": figures["FPR95"]} for method, figures in found.items()]
    spec = plots.lines(
        rows, x="FPR95", y="AUC", colour="method", description="AUC against FPR95 of each method"
    )  # fmt: skip
    return Figure(title=f"{name}: OOD pixels", spec=spec, caption="Up and left is better.")


def shots(
    name: str, model: nn.Module, methods: Mapping[str, Ensemble | Dropout | None], test: Scenes
) -> list[Shot]:  # fmt: skip
    """Two scenes with many OOD pixels: picture, labels, then confidence and uncertainty of each method."""
    made: list[Shot] = []
    for number in _most_ood(test, 2):
        one = replace(test, pictures=test.pictures[number : number + 1], maps=test.maps[number : number + 1])
        for place, (method, posterior) in enumerate(methods.items()):
            network = model if posterior is None else posteriors.Predictive(model, posterior).eval()
            scores = ["entropy"] if posterior is None else ["mutual_information"]
            seen = audit_dense(network, one, scenes=1, replicas=2, scores=scores).scenes
            assert seen is not None
            view = seen.shown[0]
            if place == 0:
                made += [
                    Shot(title=f"{name} {number}: input", png=view.picture),
                    Shot(title="labels", png=view.labels, caption="Out-of-distribution: " + ", ".join(test.ood) + "."),
                ]
            made.append(Shot(title=f"confidence, {method}", png=view.confidence, caption="Light: confident."))
            if posterior is not None:
                made.append(
                    Shot(title=f"epistemic uncertainty, {method}", png=view.uncertainty, caption="Mutual information.")
                )
    return made


def _most_ood(test: Scenes, count: int) -> list[int]:
    share = torch.cat(
        [((labels >= len(test.classes)) & (labels != test.void)).double().mean((1, 2)) for _, labels in test]
    )
    return share.argsort(descending=True)[:count].tolist()
