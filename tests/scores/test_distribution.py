"""What the outputs of regression networks mean: against scipy's distributions, and by what must not change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from caveat.errors import DataError, OptionError
from caveat.scores import distribution
from caveat.scores.distribution import FORMS, UNCERTAINTIES, of
from caveat.scores.evidential import evidence

COLUMNS = {"point": 1, "gaussian": 2, "gaussian_variance": 2, "gaussian_std": 2, "mixture": 6, "evidential": 4,
           "quantiles": 3, "samples": 7}  # fmt: skip


def outputs(form, *, n=9, draws=1, seed=0):
    made = torch.randn(draws, n, COLUMNS[form], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if form in ("gaussian_variance", "gaussian_std"):
        made[..., 1] = made[..., 1].exp()
    return made.sort(dim=-1).values if form == "quantiles" else made


def frozen(form, row):
    """scipy's distribution of one row of outputs."""
    if form == "gaussian":
        return stats.norm(row[0], np.exp(row[1] / 2))
    if form == "gaussian_variance":
        return stats.norm(row[0], np.sqrt(row[1]))
    if form == "gaussian_std":
        return stats.norm(row[0], row[1])
    found = evidence(torch.as_tensor(row)[None])
    nu, alpha, beta = float(found.precision), float(found.shape), float(found.rate)
    return stats.t(2 * alpha, row[0], np.sqrt(beta * (1 + nu) / (nu * alpha)))


@pytest.mark.parametrize("form", ["gaussian", "gaussian_variance", "gaussian_std", "evidential"])
def test_quantiles_and_probabilities_are_scipys(form):
    given = outputs(form)
    found = of(given, form)
    labels = torch.linspace(-2, 2, len(found), dtype=torch.float64)
    for row in range(len(found)):
        theirs = frozen(form, given[0, row].numpy())
        for level in (0.05, 0.5, 0.9):
            assert float(found.quantile(level)[row]) == pytest.approx(theirs.ppf(level), abs=1e-3)
        assert float(found.below(labels)[row]) == pytest.approx(theirs.cdf(float(labels[row])), abs=1e-4)
        assert float(found.mean[row]) == pytest.approx(theirs.mean(), abs=1e-9)


def test_the_variance_of_an_evidential_network_is_that_of_its_student_t():
    found = of(outputs("evidential"), "evidential")
    law = found.law
    torch.testing.assert_close(found.total, law.scale**2 * law.freedom / (law.freedom - 2))


@pytest.mark.parametrize("form", FORMS)
@given(centre=st.floats(-50, 50), scale=st.floats(0.1, 20))
def test_other_units_move_everything_alike(form, centre, scale):
    found, labels = of(outputs(form), form), torch.linspace(-1, 1, 9, dtype=torch.float64)
    moved = found.moved(centre, scale)
    torch.testing.assert_close(moved.mean, centre + scale * found.mean)
    for name, function in UNCERTAINTIES.items():
        one, other = function(found), function(moved)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(
                other, one * (scale if name == "interval_width" else scale**2), rtol=1e-6, atol=1e-9
            )
    if found.below(labels) is not None:
        torch.testing.assert_close(moved.below(centre + scale * labels), found.below(labels), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_wider_prediction_is_the_same_prediction_with_larger_deviations(form):
    found = of(outputs(form), form)
    wide = found.widened(3.0)
    torch.testing.assert_close(wide.mean, found.mean)
    ends, wider = found.ends(0.1), wide.ends(0.1)
    if ends is not None:
        torch.testing.assert_close(wider[1] - wider[0], 3 * (ends[1] - ends[0]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_part_is_what_the_part_of_the_outputs_means(form):
    given, rows = outputs(form), torch.tensor([7, 0, 3])
    one, other = of(given, form).part(rows), of(given[:, rows], form)
    torch.testing.assert_close(one.mean, other.mean)
    for function in UNCERTAINTIES.values():
        assert function(one) is None or torch.equal(function(one), function(other))


def test_several_networks_split_the_variance():
    given = outputs("gaussian", draws=5)
    found = of(given, "gaussian")
    means, variances = given[..., 0], given[..., 1].exp()
    torch.testing.assert_close(found.aleatoric, variances.mean(0), rtol=1e-3, atol=0)  # the log variance is kept soft
    torch.testing.assert_close(found.epistemic, means.var(0, correction=0))
    drawn = torch.randn(4000, 5, 9, generator=torch.Generator().manual_seed(1)).double() * variances.sqrt() + means
    torch.testing.assert_close(found.total, drawn.flatten(0, 1).var(0), rtol=0.05, atol=0)


@pytest.mark.parametrize("form", [form for form, one in FORMS.items() if one.draws])
def test_one_network_in_several_copies_has_no_epistemic_variance(form):
    one = outputs(form)
    several = of(one.expand(3, -1, -1), form)
    torch.testing.assert_close(several.epistemic, torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(several.mean, of(one, form).mean)
    assert of(one, form).epistemic is None or form == "evidential"


def test_quantiles_that_cross_are_sorted_and_the_middle_is_the_prediction():
    found = of(torch.tensor([[1.0, 3.0, 2.0]]), "quantiles", levels=(0.1, 0.5, 0.9))
    assert found.mean.tolist() == [2.0]
    assert [end.tolist() for end in found.interval(0.2)] == [[1.0], [3.0]]
    assert found.interval(0.1) is None
    assert [end.tolist() for end in found.ends(0.1)] == [[1.0], [3.0]]


def test_quantiles_without_a_median_predict_the_middle_of_the_two_around_it():
    assert of(torch.tensor([[0.0, 1.0, 3.0, 9.0]]), "quantiles", levels=(0.1, 0.3, 0.7, 0.9)).mean.tolist() == [2.0]


@pytest.mark.parametrize("form", ["gaussian", "mixture"])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_log_variances_of_any_unit_are_taken_as_they_are(form, unit):
    given = outputs(form)
    moved = given.clone()
    thirds = given.shape[-1] // 3 if form == "mixture" else 0
    means, logs = (slice(thirds, 2 * thirds), slice(2 * thirds, None)) if thirds else (slice(0, 1), slice(1, 2))
    moved[..., means] *= unit
    moved[..., logs] += 2 * math.log(unit)
    torch.testing.assert_close(of(moved, form).total, of(given, form).total * unit**2, rtol=1e-9, atol=0)


def test_limited_log_variances_are_those_of_the_objective():
    raw = torch.tensor([[0.0, -30.0], [0.0, 0.5]])
    assert of(raw, "gaussian", limited=True).total.tolist() == pytest.approx([math.exp(-14), math.exp(0.5)], rel=1e-3)
    with pytest.raises(DataError, match="are they variances"):
        of(torch.tensor([[0.0, 900.0]]), "gaussian")


def test_quantiles_in_another_order_are_refused():
    with pytest.raises(DataError, match="columns in another order"):
        of(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), "quantiles")


def test_samples_are_the_distribution():
    found = of(torch.tensor([[4.0, 1.0, 2.0, 3.0]]), "samples")
    assert (found.mean.item(), found.total.item()) == (2.5, pytest.approx(5 / 3))
    assert found.below(torch.tensor([2.0], dtype=torch.float64)).item() == 0.5


@pytest.mark.parametrize(
    ("form", "columns", "word"),
    [("gaussian", 3, "mean and log variance"), ("quantiles", 2, "levels"), ("evidential", 2, "parameters"),
     ("mixture", 4, "a third"), ("point", 2, "alone")],
)  # fmt: skip
def test_outputs_of_another_form_are_refused_with_those_that_fit(form, columns, word):
    with pytest.raises(OptionError, match=word) as caught:
        of(torch.ones(4, columns), form)
    fitting = str(caught.value).rpartition("expected one of ")[2].split(", ")
    assert fitting == [name for name, one in FORMS.items() if one.fits(columns, distribution.LEVELS)]


def test_what_is_no_variance_is_refused():
    with pytest.raises(DataError, match=r"positive variance.*logarithm"):
        of(torch.tensor([[0.0, -1.0]]), "gaussian_variance")
    with pytest.raises(DataError, match="NaN"):
        of(torch.tensor([[0.0, float("nan")]]), "gaussian")
    with pytest.raises(OptionError, match="several networks"):
        of(outputs("evidential", draws=2), "evidential")
    with pytest.raises(OptionError, match="ascending"):
        of(torch.ones(2, 2), "quantiles", levels=(0.9, 0.1))
    with pytest.raises(OptionError, match="error"):
        of(outputs("gaussian"), "gaussian").interval(1.0)
    with pytest.raises(OptionError, match="no 'gausian'"):
        of(outputs("gaussian"), "gausian")
