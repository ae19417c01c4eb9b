"""What every metric of predictive distributions promises: order, precision, units, direction, refusals."""

import math

import pytest
import torch

from caveat.errors import DataError
from caveat.metrics import OF_REGRESSION
from tests.metrics.test_regression import arguments, given, value_of

IN_UNITS = {"rmse", "mae", "gaussian_crps", "mixture_crps", "interval_width", "interval_score"}
"""Double the labels and all that goes with them, and these double."""


@pytest.mark.parametrize("name", OF_REGRESSION)
def test_of_predictive_distributions(name: str) -> None:
    found = given()
    kept = {key: tensor.clone() for key, tensor in found.items()}
    value = value_of(name, found)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert all(torch.equal(found[key], kept[key]) for key in kept)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    shuffled = {key: tensor[..., order] for key, tensor in found.items()}
    assert value_of(name, shuffled).item() == pytest.approx(value.item(), rel=1e-12)
    assert value_of(name, {key: tensor.float() for key, tensor in found.items()}).item() == pytest.approx(
        value.item(), rel=1e-4, abs=1e-5
    )
    doubled = value_of(name, arguments(2 * found["mean"], 4 * found["variance"], 2 * found["labels"])).item()
    if name in IN_UNITS:
        assert doubled == pytest.approx(2 * value.item(), rel=1e-12)
    elif name.endswith("nll"):
        assert doubled == pytest.approx(value.item() + math.log(2), rel=1e-12)
    else:
        assert doubled == pytest.approx(value.item(), rel=1e-12)
    for bias in (2.0, -2.0) if name != "interval_width" else ():
        worse = value_of(name, given(bias=bias))
        assert (worse < value) if name == "interval_coverage" else (worse > value)
    with pytest.raises(DataError):
        value_of(name, {key: tensor.new_full(tensor.shape, float("nan")) for key, tensor in found.items()})
    with pytest.raises(DataError):
        value_of(name, {key: tensor[..., :0] for key, tensor in found.items()})
