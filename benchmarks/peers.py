"""The same work by other libraries, in the same run, results compared: calibration, ranking, conformal sets, Laplace.

scikit-learn and torchmetrics stand in the environment of development, MAPIE and laplace-torch where `make references`
has put them. netcal wants gpytorch, pyro and tensorboard, and is left out. Ours and theirs take turns; medians
of the seconds; a ratio below 1 where ours is faster. Where results differ by more than rounding the script ends in an
error. The last line is JSON.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from turns import in_turns

from caveat import calibration, metrics
from caveat.metrics.tally import tally_sets

sys.path.append(str(Path(__file__).parents[1]))
from tests.references.peers import load_peer


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Ours over theirs, and the medians of both in seconds."""
    found = in_turns(repeats, {"ours": ours, "theirs": theirs})
    return found["ours"] / found["theirs"], found["ours"], found["theirs"]


def network(n: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits that are twice too large, and labels drawn from the true ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator)
    return 2 * logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def agree(name: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """End the script where two results are not the same."""
    if not np.allclose(np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float), atol=tolerance, rtol=0):
        raise SystemExit(f"{name}: ours gives {ours}, the other {theirs}")


def ece_over_torchmetrics(n: int, repeats: int) -> tuple[float, float, float]:
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = network(n, 100, 0)
    probs = logits.softmax(1)

    def ours() -> Tensor:
        return metrics.calibration.ece(metrics.calibration.confidence_bins(probs, labels, bins=15))

    def theirs() -> Tensor:
        return multiclass_calibration_error(probs, labels, num_classes=100, n_bins=15, validate_args=False)

    agree("ECE", ours(), theirs(), 1e-5)
    return ratio(ours, theirs, repeats)


def auroc_over_sklearn(n: int, repeats: int) -> tuple[float, float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    generator = torch.Generator().manual_seed(1)
    inside, outside = torch.randn(n // 2, generator=generator), torch.randn(n // 2, generator=generator) + 1

    def ours() -> list[float]:
        counted = tally_sets(inside.double(), outside.double())
        return [
            float(f(counted)) for f in (metrics.ranking.auroc, metrics.ranking.aupr_out, metrics.ranking.fpr_at_tpr)
        ]

    def theirs() -> list[float]:
        scores = torch.cat([inside, outside]).numpy()
        ood = np.repeat([0, 1], n // 2)
        accepted, kept, _ = roc_curve(1 - ood, -scores)
        fpr = float(accepted[np.searchsorted(kept, 0.95)])
        return [float(roc_auc_score(ood, scores)), float(average_precision_score(ood, scores)), fpr]

    agree("AUROC, AUPR, FPR at 95 %", ours(), theirs(), 1e-4)
    return ratio(ours, theirs, repeats)


def isotonic_over_sklearn(n: int, repeats: int) -> tuple[float, float, float]:
    from sklearn.isotonic import IsotonicRegression

    logits, labels = network(n, 10, 2)
    probs = logits.double().softmax(1).numpy()

    def ours() -> Tensor:
        return calibration.isotonic.fit(logits, labels)(logits).softmax(1)

    def theirs() -> np.ndarray:
        made = [
            IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit_transform(probs[:, k], labels.numpy() == k)
            for k in range(10)
        ]
        found = np.stack(made, axis=1)
        return found / found.sum(axis=1, keepdims=True)

    far = np.abs(ours().numpy() - theirs())
    agree("isotonic calibration, mean difference", far.mean(), 0, 0.01)  # ours smooths the ends, so that none is 0
    return ratio(ours, theirs, repeats)


def conformal_over_mapie(n: int, repeats: int) -> tuple[float, float, float] | None:
    if load_peer("mapie") is None:
        return None
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    logits, labels = network(n, 10, 3)
    half = n // 2
    probs = logits.double().softmax(1).numpy()

    class Given(ClassifierMixin, BaseEstimator):
        """The network's probabilities, row by row."""

        classes_ = np.arange(10)

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return probs[x[:, 0].astype(int)]

        def predict(self, x: np.ndarray) -> np.ndarray:
            return self.predict_proba(x).argmax(axis=1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    rows = np.arange(n, dtype=float)[:, None]

    def ours() -> Tensor:
        return calibration.conformal.lac(logits[:half], labels[:half], error=0.1)(logits[half:])

    def theirs() -> np.ndarray:
        made = SplitConformalClassifier(Given(), confidence_level=0.9, prefit=True, conformity_score="lac")
        made.conformalize(rows[:half], labels[:half].numpy())
        return made.predict_set(rows[half:])[1][:, :, 0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agree("LAC sets, share that differs", float((ours().numpy() != theirs()).mean()), 0, 1e-3)
        return ratio(ours, theirs, repeats)


def laplace_over_laplace_torch(n: int, repeats: int) -> tuple[float, float, float] | None:
    theirs_module = load_peer("laplace")
    if theirs_module is None:
        return None
    from caveat.posteriors import laplace as own

    generator = torch.Generator().manual_seed(5)
    features, net = torch.randn(n, 64, generator=generator), torch.nn.Sequential(torch.nn.Linear(64, 10))
    labels = torch.multinomial((2 * net(features)).softmax(1).detach(), 1, generator=generator).squeeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, labels), batch_size=512)
    head = (net[0].weight.detach(), net[0].bias.detach())

    def ours() -> float:
        return own.fit(features, labels, head, layer="0").evidence

    def theirs() -> float:
        made = theirs_module.Laplace(net, "classification", subset_of_weights="all", hessian_structure="full")
        made.fit(loader)
        made.optimize_prior_precision(method="marglik")
        return float(made.log_marginal_likelihood())

    agree("evidence, relative", ours() / theirs(), 1, 1e-3)
    return ratio(ours, theirs, repeats)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="few samples: does the script run, do results agree?")
    smoke = options.parse_args().smoke
    torch.set_num_threads(1)
    table = Table("same work", "ours, s", "theirs, s", "ours over theirs")
    found: dict[str, float] = {}
    for measure, size in (
        (ece_over_torchmetrics, 200_000), (auroc_over_sklearn, 200_000), (isotonic_over_sklearn, 20_000),
        (conformal_over_mapie, 20_000), (laplace_over_laplace_torch, 5_000),
    ):  # fmt: skip
        made = measure(size // 20 if smoke else size, 2 if smoke else 7)
        if made is None:
            table.add_row(measure.__name__, "", "", "not installed: make references")
            continue
        found[measure.__name__] = round(made[0], 3)
        table.add_row(measure.__name__, f"{made[1]:.4f}", f"{made[2]:.4f}", f"{made[0]:.3f}")
    Console().print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
