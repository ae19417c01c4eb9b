"""What every calibration of `FROM_LOGITS` promises, and every one of `CONFORMAL` and `CONFORMAL_INTERVALS`."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from caveat import fitted
from caveat.calibration import (
    BY_CLASS,
    CONFORMAL,
    CONFORMAL_INTERVALS,
    FROM_LOGITS,
    KEEP_ORDER,
    ONE_VERSUS_REST,
    PARAMETRIC,
)
from caveat.calibration.conformal import coverage
from caveat.errors import DataError, OptionError
from tests.conftest import shapes_unchecked

ROWS = [pytest.param(fit, id=name) for name, fit in FROM_LOGITS.items()]
LIKELIEST = [pytest.param(fit, id=name) for name, fit in PARAMETRIC.items()]
SETS = [pytest.param(fit, id=name) for name, fit in CONFORMAL.items()]
INTERVALS = [pytest.param(fit, id=name) for name, fit in CONFORMAL_INTERVALS.items()]


def overconfident(n: int = 2000, c: int = 4, *, sharp: float = 2.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, float64, that are `sharp` times those the labels were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    return logits * sharp, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.double(), labels).item()


def test_the_tables_agree() -> None:
    assert FROM_LOGITS == {**PARAMETRIC, **ONE_VERSUS_REST}
    assert set(KEEP_ORDER) <= set(FROM_LOGITS)


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
    lost = loss(held_out, held_labels) - truth
    assert lost > 0.2
    # histogram binning keeps the predicted class at the price of some likelihood; every other is nearer
    assert loss(got, held_labels) < truth + (0.1 * lost if fit is FROM_LOGITS["histogram"] else 0.02)


@pytest.mark.parametrize("fit", LIKELIEST)
def test_never_worse_than_nothing_on_its_own_data(fit) -> None:
    for seed in (0, 3, 6, 9):
        logits, labels = overconfident(60, sharp=0.3 + 0.4 * seed, seed=seed)
        assert loss(fit(logits, labels)(logits), labels) <= loss(logits, labels) + 1e-12


@pytest.mark.parametrize("name", FROM_LOGITS)
def test_calibrated_logits_stay_nearly_as_they_are(name: str) -> None:
    logits, labels = overconfident(20_000, sharp=1.0)
    moved = (FROM_LOGITS[name](logits, labels)(logits).softmax(1) - logits.softmax(1)).abs()
    # Curves with steps move single samples further.
    assert (moved.max() if name in PARAMETRIC else moved.mean()) < 0.02


@pytest.mark.parametrize("name", KEEP_ORDER)
def test_the_order_of_the_classes_stays(name: str) -> None:
    logits, labels = overconfident(300)
    assert torch.equal(FROM_LOGITS[name](logits, labels)(logits).argsort(1), logits.argsort(1))


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
    # Up to the rounding of a matrix product, whose order of summation depends on its size.
    torch.testing.assert_close(calibrated(logits)[3:4], calibrated(logits[3:4]), rtol=1e-13, atol=1e-13)
    assert calibrated(logits[:0]).shape == (0, 4)


@pytest.mark.parametrize("fit", ROWS)
def test_frozen_and_nothing_of_the_callers_world_is_changed(fit) -> None:
    logits, labels = overconfident(200)
    logits.requires_grad_()
    kept, state = logits.detach().clone(), torch.get_rng_state()
    calibrated = fit(logits, labels)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(calibrated, dataclasses.fields(calibrated)[0].name, None)
    tensors = [v for v in vars(calibrated).values() if isinstance(v, torch.Tensor)]
    assert tensors
    assert not any(tensor.requires_grad for tensor in tensors)
    assert torch.equal(kept, logits.detach())
    assert logits.grad is None
    assert torch.equal(state, torch.get_rng_state())
    with torch.inference_mode():
        inside = fit(logits.clone(), labels)
    torch.testing.assert_close(inside(logits.detach()), calibrated(logits.detach()))


@pytest.mark.parametrize("fit", LIKELIEST)
def test_attacks_look_through(fit) -> None:
    logits, labels = overconfident(200)
    calibrated = fit(logits, labels)
    assert torch.autograd.gradcheck(calibrated, logits[:3].clone().requires_grad_())


@pytest.mark.parametrize("fit", ROWS)
def test_saved_and_loaded_it_says_the_same(fit, tmp_path) -> None:
    logits, labels = overconfident(200)
    calibrated = fit(logits, labels)
    fitted.save(calibrated, tmp_path / "g.safetensors")
    again = fitted.load(type(calibrated), tmp_path / "g.safetensors")
    assert torch.equal(again(logits), calibrated(logits))


@pytest.mark.parametrize("fit", ROWS)
def test_sure_and_wrong_networks_stay_finite(fit) -> None:
    logits, labels = overconfident(120, c=5)
    labels[labels == 4] = 0  # a class that never occurs
    for factor, answers in ((1e-3, logits.argmin(1)), (1e4, labels), (1e4, logits.argmax(1)), (1e4, logits.argmin(1))):
        got = fit(logits * factor, answers)(logits * factor)
        assert got.isfinite().all()
        assert got.log_softmax(1).isfinite().all()


@pytest.mark.parametrize("fit", [*ROWS, *SETS])
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


@pytest.mark.parametrize("fit", SETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_sets_cover_as_promised_though_the_network_is_overconfident(fit, dtype: torch.dtype) -> None:
    logits, labels = overconfident(4000)
    held_out, held_labels = overconfident(4000, seed=1)
    for error in (0.05, 0.2):
        sets = fit(logits.to(dtype), labels, error=error)(held_out.to(dtype))
        # Both parts vary by a standard deviation of sqrt(error (1 - error) / 4000): four of their sum below. The
        # steps of sets without randomness may lie above.
        bound = 4 * (2 * error * (1 - error) / 4000) ** 0.5
        assert coverage(sets, held_labels) > 1 - error - bound
        assert coverage(sets, held_labels) < 1 - error + bound + 0.02


@pytest.mark.parametrize("fit", SETS)
def test_a_smaller_error_never_makes_a_set_smaller(fit) -> None:
    logits, labels = overconfident(500)
    chain = [fit(logits, labels, error=e)(logits) for e in (0.4, 0.2, 0.1, 0.02, 0.001)]
    assert all(bool((small <= large).all()) for small, large in pairwise(chain))
    assert chain[-1].all()  # 500 samples can promise no error of 0.001
    assert not chain[0].all()


@pytest.mark.parametrize("fit", [pytest.param(CONFORMAL[name], id=name) for name in CONFORMAL if name not in BY_CLASS])
def test_sets_follow_the_order_of_the_probabilities_and_of_no_other_thing(fit) -> None:
    logits, labels = overconfident(500)
    predict = fit(logits, labels)
    sets = predict(logits)
    lowest_inside = logits.masked_fill(~sets, torch.inf).amin(1)
    highest_outside = logits.masked_fill(sets, -torch.inf).amax(1)
    assert (lowest_inside > highest_outside).all()
    assert torch.equal(predict(logits[7:8] + 3.0), sets[7:8])
    assert torch.equal(predict(logits[:, [2, 0, 3, 1]]), sets[:, [2, 0, 3, 1]])


@pytest.mark.parametrize("fit", SETS)
def test_sets_are_saved_and_loaded(fit, tmp_path) -> None:
    logits, labels = overconfident(500)
    for data in ((logits, labels), (logits[:3], labels[:3])):  # the latter with an infinite quantile
        predict = fit(*data)
        fitted.save(predict, tmp_path / "sets.safetensors")
        assert torch.equal(fitted.load(type(predict), tmp_path / "sets.safetensors")(logits), predict(logits))


@pytest.mark.parametrize("fit", SETS)
@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, float("nan")])
def test_an_impossible_error_is_refused(fit, error: float) -> None:
    with pytest.raises(OptionError, match=r"error: expected a share in \(0, 1\), got"):
        fit(*overconfident(20), error=error)


def intervals(n: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Intervals that are too narrow on one side, and labels; float64."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(n, generator=generator, dtype=torch.float64)
    labels = centre + torch.randn(n, generator=generator, dtype=torch.float64)
    return centre - 0.3, centre + 1.0, labels


def share_inside(ends: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> float:
    return float(((ends[0] <= labels) & (labels <= ends[1])).double().mean())


@pytest.mark.parametrize("fit", INTERVALS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_intervals_cover_as_promised_though_those_predicted_do_not(fit, dtype: torch.dtype) -> None:
    lower, upper, labels = (part.to(dtype) for part in intervals(4000))
    low, high, truth = (part.to(dtype) for part in intervals(4000, seed=1))
    assert share_inside((low, high), truth) < 0.6
    for error in (0.05, 0.2):
        ends = fit(lower, upper, labels, error=error)(low, high)
        assert ends[0].dtype == dtype
        bound = 4 * (2 * error * (1 - error) / 4000) ** 0.5
        assert abs(share_inside(ends, truth) - (1 - error)) < bound + 2e-3


@pytest.mark.parametrize("fit", INTERVALS)
def test_intervals_whatever_the_order_the_batch_and_the_error(fit) -> None:
    lower, upper, labels = intervals()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    correct = fit(lower, upper, labels)
    whole = torch.stack(correct(lower, upper))
    assert torch.equal(torch.stack(fit(lower[order], upper[order], labels[order])(lower, upper)), whole)
    assert torch.equal(torch.stack(correct(lower[3:4], upper[3:4])), whole[:, 3:4])
    chain = [torch.stack(fit(lower, upper, labels, error=e)(lower, upper)) for e in (0.4, 0.2, 0.1, 0.02)]
    assert all(bool((a[0] > b[0]).all() and (a[1] < b[1]).all()) for a, b in pairwise(chain))


@pytest.mark.parametrize("fit", INTERVALS)
def test_intervals_are_frozen_saved_and_loaded(fit, tmp_path) -> None:
    lower, upper, labels = intervals()
    for n in (400, 3):  # the latter with an infinite quantile
        correct = fit(lower[:n], upper[:n], labels[:n])
        assert type(correct).__dataclass_params__.frozen
        fitted.save(correct, tmp_path / "g.safetensors")
        again = fitted.load(type(correct), tmp_path / "g.safetensors")
        assert torch.equal(torch.stack(again(lower, upper)), torch.stack(correct(lower, upper)))


@pytest.mark.parametrize("fit", INTERVALS)
def test_intervals_of_nothing_of_nan_and_of_other_lengths_are_refused(fit) -> None:
    lower, upper, labels = intervals()
    with pytest.raises(DataError, match="lower: expected finite"):
        fit(lower * torch.nan, upper, labels)
    with pytest.raises(DataError, match=r"lower: expected \(n,\)"):
        fit(lower[:0], upper[:0], labels[:0])
    with shapes_unchecked(), pytest.raises(DataError, match=r"lower: expected \(n,\), one for each of 399"):
        fit(lower, upper, labels[:-1])
    for error in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match=r"error: expected a share in \(0, 1\), got"):
            fit(lower, upper, labels, error=error)
