"""What every calibration of `FROM_LOGITS` promises."""

import dataclasses

import pytest
import torch

from caveat.calibration import FROM_LOGITS
from caveat.errors import DataError

ROWS = [pytest.param(fit, id=name) for name, fit in FROM_LOGITS.items()]


def overconfident(n: int = 2000, c: int = 4, *, sharp: float = 2.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, float64, that are `sharp` times those the labels were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    return logits * sharp, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.double(), labels).item()


@pytest.mark.parametrize("fit", ROWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_mends_overconfidence_in_any_dtype(fit, dtype: torch.dtype) -> None:
    logits, labels = overconfident()
    held_out, held_labels = overconfident(seed=1)
    calibrated = fit(logits.to(dtype), labels)
    got = calibrated(held_out.to(dtype))
    assert got.dtype == dtype
    assert got.shape == held_out.shape
    truth = loss(held_out / 2.5, held_labels)
    assert loss(got, held_labels) < truth + 0.02
    assert loss(held_out, held_labels) > truth + 0.2


@pytest.mark.parametrize("fit", ROWS)
def test_never_worse_than_nothing_on_its_own_data(fit) -> None:
    for seed in range(10):
        logits, labels = overconfident(60, sharp=0.3 + 0.4 * seed, seed=seed)
        assert loss(fit(logits, labels)(logits), labels) <= loss(logits, labels) + 1e-12


@pytest.mark.parametrize("fit", ROWS)
def test_calibrated_logits_stay_nearly_as_they_are(fit) -> None:
    logits, labels = overconfident(20_000, sharp=1.0)
    moved = (fit(logits, labels)(logits).softmax(1) - logits.softmax(1)).abs().max()
    assert moved < 0.02


@pytest.mark.parametrize("fit", ROWS)
def test_order_of_the_data_and_dense_layout_are_irrelevant(fit) -> None:
    logits, labels = overconfident(96)
    expected = fit(logits, labels)(logits)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fit(logits[order], labels[order])(logits), expected, rtol=1e-8, atol=1e-8)
    picture, marked = logits.reshape(4, 4, 6, 4).movedim(-1, 1), labels.reshape(4, 4, 6)
    dense = fit(picture, marked)(picture)
    torch.testing.assert_close(dense.movedim(1, -1).reshape(96, 4), expected, rtol=1e-8, atol=1e-8)
    void = torch.cat((logits, -logits)), torch.cat((labels, torch.full_like(labels, 255)))
    torch.testing.assert_close(fit(*void, void=255)(logits), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("fit", ROWS)
def test_one_sample_does_not_see_the_others(fit) -> None:
    logits, labels = overconfident(200)
    calibrated = fit(logits, labels)
    assert torch.equal(calibrated(logits)[3:4], calibrated(logits[3:4]))


@pytest.mark.parametrize("fit", ROWS)
def test_frozen_and_nothing_of_the_callers_world_is_changed(fit) -> None:
    logits, labels = overconfident(200)
    logits.requires_grad_()
    kept, state = logits.detach().clone(), torch.get_rng_state()
    calibrated = fit(logits, labels)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(calibrated, dataclasses.fields(calibrated)[0].name, None)
    for field in dataclasses.fields(calibrated):
        assert not getattr(calibrated, field.name).requires_grad
    assert calibrated(logits).requires_grad  # attacks look through the calibration
    assert torch.equal(kept, logits.detach())
    assert logits.grad is None
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("fit", ROWS)
def test_mistakes_are_refused(fit) -> None:
    logits, labels = overconfident(5)
    for bad in (float("nan"), float("inf")):
        broken = logits.clone()
        broken[2, 1] = bad
        with pytest.raises(DataError, match="logits: expected finite values, got 1 NaN or infinite"):
            fit(broken, labels)
    with pytest.raises(DataError, match="labels: expected 0 to 3, got 4"):
        fit(logits, labels * 0 + 4)
    with pytest.raises(DataError, match="labels: expected 0 to 3, got -1"):
        fit(logits, labels * 0 - 1)
    with pytest.raises(DataError, match="none is labelled"):
        fit(logits[:0], labels[:0])
    with pytest.raises(DataError, match="c >= 2"):
        fit(logits[:, :1], labels)
