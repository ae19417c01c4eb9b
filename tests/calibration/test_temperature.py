"""Temperature scaling: closed forms, a general optimiser as oracle, and as regressions what netcal and TorchUncertainty
fail at."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from caveat.calibration import _check, temperature
from caveat.calibration.temperature import Temperature, fit
from caveat.errors import DataError, OptionError
from caveat.fitted import load, save

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)


def population(true: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels whose frequencies are exactly softmax(logits / true): the likeliest temperature is `true`."""
    frequencies: Sequence[Sequence[int]] = [[7, 2, 1], [4, 3, 3], [1, 1, 8], [2, 6, 2], [5, 4, 1]]
    logits, labels = [], []
    for counts in frequencies:
        for label, count in enumerate(counts):
            logits += [[true * math.log(k / 10) + 3 for k in counts]] * count
            labels += [label] * count
    return torch.tensor(logits, dtype=torch.float64).to(dtype), torch.tensor(labels)


def noise(n: int, c: int, scale: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return logits * scale, labels


def loss(inverse: float, logits: torch.Tensor, labels: torch.Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits * inverse, labels).item()


@pytest.mark.parametrize("true", [0.05, 0.5, 1.0, 1.7, 4.0, 50.0])
def test_recovers_a_known_temperature(true: float) -> None:
    assert fit(*population(true)).temperature.item() == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_is_no_silent_no_op_in_low_precision(dtype: torch.dtype, rel: float) -> None:
    # Regression: netcal's finite differences on a float32 loss leave the temperature at 1.
    assert fit(*population(2.0, dtype)).temperature.item() == pytest.approx(2.0, rel=rel)


def test_two_classes_by_hand() -> None:
    # The gap is 3 everywhere and the answer right in 3 of 4: sigmoid(3 / T) = 3/4, T = 3 / log 3.
    logits = torch.tensor([[3.0, 0.0]]).repeat(4, 1)
    assert fit(logits, torch.tensor([0, 1, 0, 0])).temperature.item() == pytest.approx(3 / math.log(3), rel=1e-12)


@PROPERTY
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.7, 3.0, 40.0]), st.integers(2, 6))
def test_is_the_minimum_that_a_general_optimiser_finds(seed: int, scale: float, c: int) -> None:
    logits, labels = noise(30, c, scale, seed)
    got = fit(logits, labels).temperature.item()
    theirs = minimize_scalar(
        lambda log: loss(math.exp(log), logits, labels),
        bounds=(math.log(0.01), math.log(100)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    # TorchUncertainty's optimiser has no line search and can leave the positive numbers.
    assert 0.01 <= got <= 100
    assert loss(1 / got, logits, labels) <= theirs.fun + 1e-12


@PROPERTY
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_scaled_logits_scale_the_temperature(seed: int, factor: float) -> None:
    logits, labels = noise(50, 3, 2.0, seed)
    assert fit(logits * factor, labels).temperature.item() == pytest.approx(
        min(max(fit(logits, labels).temperature.item() * factor, 0.01), 100), rel=1e-6
    )


def test_few_passes_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, slope = [], temperature._slope

    def counting(*arguments):
        passes.append(1)
        return slope(*arguments)

    monkeypatch.setattr(temperature, "_slope", counting)
    for seed, scale in enumerate([0.02, 0.3, 1.0, 3.0, 30.0]):
        passes.clear()
        fit(*noise(300, 5, scale, seed))
        assert 3 <= len(passes) <= 25


def test_ends_of_the_range() -> None:
    separable = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    assert fit(separable, torch.tensor([0, 1])).temperature.item() == pytest.approx(0.01)
    assert fit(separable, torch.tensor([1, 0])).temperature.item() == pytest.approx(100)
    assert fit(torch.zeros(3, 4), torch.tensor([0, 1, 2])).temperature.item() == 1


def test_extreme_logits() -> None:
    logits, labels = noise(500, 4, 1.0, 0)
    huge = fit(logits * 20, labels)  # +-60
    for factor in (1e4, 1e6):
        got = fit(logits * factor, labels)
        assert got.temperature.item() == 100
        assert got(logits * factor).isfinite().all()
    assert huge.temperature.item() == pytest.approx(20 * fit(logits, labels).temperature.item(), rel=1e-8)
    sure = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]])
    assert 0 < fit(sure, torch.tensor([0, 1, 0])).temperature.item() <= 1


def test_keeps_the_answers_and_their_dtype() -> None:
    logits, labels = noise(500, 7, 5.0, 0)
    got = fit(logits, labels)(logits.float())
    assert got.dtype == torch.float32
    assert torch.equal(got.argmax(1), logits.argmax(1))
    torch.testing.assert_close(Temperature(torch.tensor(2.0))(logits), logits / 2)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(100, 3, 2.0, 0)
    whole = fit(*data).temperature.item()
    monkeypatch.setattr(temperature, "_ROWS", 7)
    assert fit(*data).temperature.item() == pytest.approx(whole, rel=1e-9)


def test_ece_as_objective() -> None:
    logits, labels = noise(3000, 5, 3.0, 1)
    got = fit(logits, labels, objective="ece").temperature.item()
    likeliest = fit(logits, labels).temperature.item()
    values = {t: temperature._ece(logits, labels, 1 / t) for t in (got, likeliest, 1.0)}
    assert values[got] <= min(values.values())
    assert values[got] < 0.02 < values[1.0]
    assert got == pytest.approx(3, rel=0.3)


def test_the_ece_here_is_that_of_the_metrics() -> None:
    from caveat.metrics.calibration import confidence_bins, ece

    logits, labels = noise(400, 5, 3.0, 1)
    for warmth in (1.7, 3.0):  # too sure in all bins; and in some of them not sure enough
        expected = ece(confidence_bins((logits / warmth).softmax(1), labels)).item()
        assert temperature._ece(logits, labels, 1 / warmth) == pytest.approx(expected, abs=1e-12)


def test_saves_and_loads(tmp_path) -> None:
    got = fit(*population(1.7))
    save(got, tmp_path / "t.safetensors")
    assert load(Temperature, tmp_path / "t.safetensors").temperature == got.temperature


def test_exports() -> None:
    class Scaled(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return Temperature(torch.tensor(2.0, dtype=torch.float64))(logits)

    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.export.export(Scaled(), (logits,)).module()(logits), logits / 2)


def test_mistakes_are_refused() -> None:
    with pytest.raises(OptionError, match="objective: expected 'nll' or 'ece', got 'brier'"):
        fit.__wrapped__(*population(1.0), objective="brier")  # run-time type checks stand before it in tests
    with pytest.raises(DataError, match=r"labels: expected shape \(4,\) to go with logits, got \(3,\)"):
        _check.labelled_rows(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64), void=None)
