"""What every metric of the tables promises: range, ends, order of the data, merging, and no guessing."""

import pytest
import torch

from caveat.metrics import OF_BINS, OF_LOGITS, OF_PROBABILITIES, OF_RANKING, OF_SELECTIVE, calibration, proper
from caveat.metrics.tally import histogram_tally, merge, quantile_edges, resample, tally, tally_sets

HIGHER_IS_BETTER = {"auroc", "aupr_in", "aupr_out", "coverage_at_5_risk", "accuracy"}


def rows(*tables):
    return [pytest.param(metric, id=name) for table in tables for name, metric in table.items()]


def scores(n: int = 400, seed: int = 0, *, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounded to tenths, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n, generator=generator) < 0.25
    return (torch.randn(n, generator=generator) + apart * positive).mul(10).round() / 10, positive


def answers(n: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=generator, dtype=torch.float64) * 2
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def outputs(name: str, logits: torch.Tensor) -> torch.Tensor:
    return logits if name in OF_LOGITS else logits.softmax(1)


OF_OUTPUTS = {**OF_PROBABILITIES, **OF_LOGITS}


@pytest.mark.parametrize("metric", rows(OF_RANKING, OF_SELECTIVE))
def test_of_a_tally(metric) -> None:
    s, positive = scores()
    whole = tally(s, positive)
    value = metric(whole)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert 0 <= value <= 1
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    assert metric(tally(s[order], positive[order])) == value
    assert metric(merge(tally(s[:150], positive[:150]), tally(s[150:], positive[150:]))) == value
    assert metric(tally(s.reshape(4, 10, 10), positive.reshape(4, 10, 10))) == value
    assert metric(tally(s.double(), positive)) == value
    # Scores of few distinct values are counted without loss in bins, and a monotone transform changes nothing.
    assert metric(histogram_tally(s, positive, edges=quantile_edges(s))).item() == pytest.approx(
        value.item(), abs=1e-12
    )
    assert metric(tally((s.double() / 3).exp(), positive)) == value
    drawn = metric(resample(whole, replicas=30, generator=torch.Generator().manual_seed(2)))
    assert drawn.shape == (30,)
    assert drawn.std() > 0
    assert abs(drawn.mean() - value) < 3 * drawn.std()


@pytest.mark.parametrize("name", [*OF_RANKING, *OF_SELECTIVE])
def test_better_scores_are_better_and_perfect_is_best(name: str) -> None:
    metric = {**OF_RANKING, **OF_SELECTIVE}[name]
    values = [metric(tally(*scores(4000, apart=apart))).item() for apart in (-2.0, 0.0, 1.0, 2.0, 50.0)]
    assert values == sorted(values, reverse=name not in HIGHER_IS_BETTER)
    if name in OF_RANKING or name == "e_aurc":
        assert values[-1] == pytest.approx(float(name in HIGHER_IS_BETTER), abs=1e-12)


@pytest.mark.parametrize("name", list(OF_OUTPUTS))
def test_of_outputs(name: str) -> None:
    metric = OF_OUTPUTS[name]
    logits, labels = answers()
    given = outputs(name, logits)
    value = metric(given, labels)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert value >= 0
    order = torch.randperm(96, generator=torch.Generator().manual_seed(1))
    assert metric(given[order], labels[order]).item() == pytest.approx(value.item(), abs=1e-14)
    picture = given.reshape(4, 4, 6, 4).movedim(-1, 1)
    assert metric(picture, labels.reshape(4, 4, 6)).item() == pytest.approx(value.item(), abs=1e-14)
    assert metric(given.float(), labels).item() == pytest.approx(value.item(), abs=1e-6)
    # Class order is irrelevant.
    assert metric(given.flip(1), 3 - labels).item() == pytest.approx(value.item(), abs=1e-14)
    sure = torch.nn.functional.one_hot(labels, 4).double() * 1000
    assert metric(outputs(name, sure), labels).item() == pytest.approx(float(name in HIGHER_IS_BETTER), abs=1e-12)
    wrong = metric(outputs(name, sure.roll(1, 0)), labels)
    assert (wrong < value) if name in HIGHER_IS_BETTER else (wrong > value)


@pytest.mark.parametrize("metric", rows(OF_BINS))
def test_of_bins(metric) -> None:
    logits, labels = answers(3000)
    probs = logits.softmax(1)
    counted = calibration.confidence_bins(probs, labels)
    value = metric(counted)
    assert value.shape == ()
    assert 0 < value <= 1
    parts = calibration.confidence_bins(probs[:7], labels[:7]), calibration.confidence_bins(probs[7:], labels[7:])
    assert metric(calibration.merge(*parts)).item() == pytest.approx(value.item(), abs=1e-12)
    each = metric(calibration.classwise_bins(probs, labels))
    assert each.shape == (4,)
    sharper = calibration.confidence_bins((logits * 3).softmax(1), labels)
    assert metric(sharper) > value


def test_what_is_streamed_is_small() -> None:
    logits, labels = answers(20_000)
    counted = calibration.classwise_bins(logits.softmax(1), labels)
    known = histogram_tally(logits[:, 0], labels == 0, edges=quantile_edges(logits[:100, 0]))
    tensors = [counted.count, counted.confidence, counted.hits, known.values, known.negative, known.positive]
    assert sum(t.numel() * t.element_size() for t in tensors) < 100_000


def test_nothing_of_the_callers_world_is_changed() -> None:
    state, default = torch.get_rng_state(), torch.get_default_dtype()
    logits, labels = answers()
    kept = logits.clone(), labels.clone()
    for name, metric in OF_OUTPUTS.items():
        metric(outputs(name, logits), labels)
    proper.brier_decomposition(logits.softmax(1), labels)
    tally_sets(logits[:, 0], logits[:, 1])
    assert torch.equal(kept[0], logits)
    assert torch.equal(kept[1], labels)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_default_dtype() == default
