"""Conformal sets against MAPIE's `SplitConformalClassifier`."""

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from caveat.calibration import conformal
from caveat.calibration._rank import conformal_quantile

FOLDER = Path(os.environ.get("CAVEAT_REFERENCES") or Path(__file__).parents[2] / ".references")
ERRORS = [0.03, 0.1, 0.25]


@pytest.fixture(scope="module")
def mapie() -> ModuleType:
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # at the end: nothing of ours is shadowed
    return pytest.importorskip("mapie.classification", reason=f"mapie is not in {FOLDER}: run make references")


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def fit(self, inputs, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, inputs):
        return inputs

    def predict(self, inputs):
        return inputs.argmax(1)


def network(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 6, generator=generator, dtype=torch.float64) * 1.5
    return logits * 1.7, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def conformalized(mapie: ModuleType, kind: str, logits: torch.Tensor, labels: torch.Tensor, error: float):
    given = Given().fit(None, np.arange(6))
    theirs = mapie.SplitConformalClassifier(given, confidence_level=1 - error, conformity_score=kind, random_state=3)
    return theirs.conformalize(logits.softmax(1).numpy(), labels.numpy())


@pytest.mark.parametrize("error", ERRORS)
def test_lac(mapie: ModuleType, error: float) -> None:
    (logits, labels), (asked, _) = network(500, 0), network(400, 1)
    _, theirs = conformalized(mapie, "lac", logits, labels, error).predict_set(asked.softmax(1).numpy())
    ours = conformal.lac(logits, labels, error=error)(asked)
    assert np.array_equal(ours.numpy(), theirs[:, :, 0])


@pytest.mark.parametrize("error", ERRORS)
def test_aps_randomised(mapie: ModuleType, error: float) -> None:
    (logits, labels), (asked, truth) = network(500, 0), network(20_000, 1)
    theirs = conformalized(mapie, "aps", logits, labels, error)
    # Their uniform number is 1 minus ours; with the same numbers the quantile is the same.
    drawn = torch.from_numpy(1 - np.random.RandomState(3).uniform(size=500))  # what they draw from
    scores = conformal._adaptive(logits, drawn, 0.0, 1).gather(1, labels[:, None]).squeeze(1)
    quantile = conformal_quantile(scores, error)
    _, sets = theirs.predict_set(asked.softmax(1).numpy(), conformity_score_params={"include_last_label": "randomized"})
    of_theirs = theirs._mapie_classifier.conformity_score_function_.quantiles_
    assert quantile.item() == pytest.approx(of_theirs[0], abs=1e-9)
    ours = conformal.Adaptive(quantile, 0.0, 1, True)(asked, generator=torch.Generator().manual_seed(0))
    theirs_covers = conformal.coverage(torch.from_numpy(sets[:, :, 0]), truth).item()
    assert conformal.coverage(ours, truth).item() == pytest.approx(theirs_covers, abs=0.01)
    assert ours.sum(1).double().mean().item() == pytest.approx(sets[:, :, 0].sum(1).mean(), abs=0.04)


@pytest.mark.parametrize("error", ERRORS)
def test_aps_without_randomness_covers_with_smaller_sets(mapie: ModuleType, error: float) -> None:
    # Theirs takes the quantile of other scores than those the sets are made by, and covers more than was asked for.
    (logits, labels), (asked, truth) = network(2000, 0), network(20_000, 1)
    _, theirs = conformalized(mapie, "aps", logits, labels, error).predict_set(asked.softmax(1).numpy())
    ours = conformal.aps(logits, labels, error=error)(asked)
    assert conformal.coverage(ours, truth).item() == pytest.approx(1 - error, abs=0.02)
    assert conformal.coverage(torch.from_numpy(theirs[:, :, 0]), truth) > conformal.coverage(ours, truth)
    assert ours.sum() < theirs.sum()
