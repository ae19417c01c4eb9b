"""What every metric of sets and rankings of labels promises: precision, order, ends, direction, refusals."""

import pytest
import torch

from caveat.errors import DataError
from caveat.metrics import OF_LABEL_RANKING, OF_LABEL_SETS
from tests.metrics.test_multilabel import problem

LOWER_IS_BETTER = {"hamming_loss", "ranking_loss", "coverage_error"}


@pytest.mark.parametrize("name", [*OF_LABEL_SETS, *OF_LABEL_RANKING])
def test_of_labels(name: str) -> None:
    metric = {**OF_LABEL_SETS, **OF_LABEL_RANKING}[name]
    probs, labels = problem()

    def given(scores: torch.Tensor) -> torch.Tensor:
        return scores >= 0.5 if name in OF_LABEL_SETS else scores

    value = metric(given(probs), labels)
    assert value.shape == ()
    assert value.dtype == torch.float64
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(1))
    assert metric(given(probs[order]), labels[order]).item() == pytest.approx(value.item(), abs=1e-12)
    assert metric(given(probs.float()), labels).item() == pytest.approx(value.item(), abs=1e-6)
    perfect = metric(given(labels.double()), labels).item()
    best = {"coverage_error": labels.sum(dim=1).double().mean().item()}.get(name, float(name not in LOWER_IS_BETTER))
    assert perfect == pytest.approx(best, abs=1e-12)
    worse = metric(given(probs.flip(0)), labels).item()
    assert (worse > value > perfect) if name in LOWER_IS_BETTER else (worse < value < perfect)
    with pytest.raises(DataError):
        metric(given(probs[:0]), labels[:0])
