"""Meta classifiers against scikit-learn's own answers, conditions of optimality, and what preparation promises."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from caveat import fitted
from caveat.errors import CaveatWarning, DataError, OptionError
from caveat.scores import meta
from caveat.scores.meta.linear import STRENGTHS


def learnable(*, n=800, k=6, seed=0):
    """The first two columns matter, the third repeats the first."""
    draw = torch.Generator().manual_seed(seed)
    columns = torch.randn(n, k, generator=draw, dtype=torch.float64)
    columns[:, 2] = columns[:, 0] + 0.1 * columns[:, 2]
    wrong = 2 * columns[:, 0] - columns[:, 1] + torch.randn(n, generator=draw, dtype=torch.float64) > 1.5
    return columns, wrong


def slope(score, columns, wrong):
    """Gradient of the summed log loss by weight and bias, of the prepared columns."""
    z = score.preparation(columns)
    error = torch.sigmoid(score.log_odds(columns)) - wrong.double()
    return z.T @ error, error.sum()


def test_without_a_penalty_the_gradient_vanishes():
    columns, wrong = learnable()
    by_weight, by_bias = slope(meta.glm(columns, wrong), columns, wrong)
    assert by_weight.abs().max() < 0.05  # of a sum over 800 samples
    assert by_bias.abs() < 0.05


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_the_lassos_conditions_of_optimality(strength):
    columns, wrong = learnable()
    score = meta.lasso(columns, wrong, strength=strength)
    by_weight, by_bias = slope(score, columns, wrong)
    active = score.weight != 0
    assert 0 < int(active.sum()) < len(active)
    torch.testing.assert_close(
        by_weight[active], -strength * score.weight[active].sign(), rtol=0, atol=0.02 * strength + 0.05
    )
    assert (by_weight[~active].abs() <= 1.02 * strength + 0.05).all()
    assert by_bias.abs() < 0.05 * strength + 0.1  # the bias is all but free


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_ridge_and_elastic_net_are_optimal_too(strength):
    columns, wrong = learnable()
    score = meta.ridge(columns, wrong, strength=strength)
    by_weight, by_bias = slope(score, columns, wrong)
    torch.testing.assert_close(by_weight, -strength * score.weight, rtol=0, atol=0.05)
    assert by_bias.abs() < 0.05
    score = meta.elastic_net(columns, wrong, strength=strength)
    active = score.weight != 0
    by_weight = slope(score, columns, wrong)[0]
    expected = -strength * (score.weight + score.weight.sign()) / 2
    torch.testing.assert_close(by_weight[active], expected[active], rtol=0, atol=0.02 * strength + 0.1)


def test_cross_validation_takes_a_strong_penalty_where_nothing_can_be_learned():
    draw = torch.Generator().manual_seed(3)
    columns = torch.randn(200, 20, generator=draw, dtype=torch.float64)
    nothing = torch.rand(200, generator=draw) < 0.3
    assert meta.lasso(columns, nothing, generator=draw).strength >= STRENGTHS[-3]
    assert meta.ridge(columns, nothing, generator=draw).strength == STRENGTHS[-1]
    columns, wrong = learnable(n=2000)
    assert meta.ridge(columns, wrong, generator=draw).strength <= 10
    rare = torch.zeros(200, dtype=torch.bool)
    rare[3] = True
    assert meta.lasso(columns[:200], rare).strength == 1.0  # one mistake can't be in two folds


def test_the_path_goes_from_nothing_to_everything():
    columns, wrong = learnable()
    path = meta.path(columns, wrong, strengths=(1.0, 1000.0, 30.0))
    assert path.strengths.tolist() == [1000.0, 30.0, 1.0]
    assert (path.weights[0] == 0).all()
    sizes = path.weights.abs().sum(dim=1)
    assert (sizes.diff() > 0).all()
    alone = meta.lasso(columns, wrong, strength=30.0)
    torch.testing.assert_close(path.weights[1], alone.weight, rtol=0.01, atol=0.01)


def test_columns_that_separate_are_said_to_and_still_give_a_score():
    columns = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    wrong = columns[:, 0] > 0
    score = meta.ridge(columns, wrong, strength=1.0)
    assert score(columns)[wrong].min() > 0.5 > score(columns)[~wrong].max()


def test_a_glm_without_an_optimum_warns(monkeypatch):
    monkeypatch.setattr("caveat.scores.meta.linear.STEPS", 3)
    with pytest.warns(CaveatWarning, match="meta: logistic regression stopped after 3 steps: the columns may separate"):
        meta.glm(*learnable())


@pytest.mark.parametrize("units", [1, 15])
def test_the_network_is_scikit_learns(units):
    columns, wrong = learnable()
    score = meta.network(columns, wrong, units=units, decay=1e-3, log=False, clip=False)
    z = score.preparation(columns).numpy()
    model = MLPClassifier((units,), solver="lbfgs", alpha=2 * 1e-3 * len(columns), max_iter=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = torch.from_numpy(model.fit(z, wrong.numpy()).predict_proba(z)[:, 1])
    torch.testing.assert_close(score(columns), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("count", "depth", "rate"), [(1, 1, 1.0), (30, 4, 0.3), (100, 3, 0.1)])
def test_the_trees_are_scikit_learns_to_the_last_digit(count, depth, rate):
    columns, wrong = learnable()
    score = meta.trees(columns, wrong, count=count, depth=depth, rate=rate)
    model = GradientBoostingClassifier(
        n_estimators=count, max_depth=depth, learning_rate=rate, subsample=0.5, max_features="sqrt", random_state=0
    )
    model.fit(columns.float().numpy(), wrong.numpy())
    fresh = learnable(seed=1)[0]
    fresh[0], fresh[1] = 1e300, -1e300
    expected = model.predict_proba(fresh.clamp(-1e30, 1e30).float().numpy())[:, 1]
    torch.testing.assert_close(score(fresh), torch.from_numpy(expected), rtol=1e-12, atol=1e-14)


def test_saved_trees_and_networks_hold_arrays_only(tmp_path):
    columns, wrong = learnable()
    for make in (meta.trees, meta.network, meta.lasso):
        score = make(columns, wrong, names=tuple("abcdef"))
        tensors, values = fitted.arrays(score)
        assert all(isinstance(value, (int, float, bool, tuple, list, str)) for value in values.values())
        fitted.save(score, tmp_path / "meta.safetensors")
        again = fitted.load(type(score), tmp_path / "meta.safetensors")
        assert torch.equal(again.log_odds(columns), score.log_odds(columns))
        assert tensors


def test_a_generator_decides_and_nothing_else():
    columns, wrong = learnable()
    state = torch.get_rng_state()
    for make in (meta.trees, meta.network):
        one, same, other = (make(columns, wrong, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert torch.equal(one(columns), same(columns))
        assert not torch.equal(one(columns), other(columns))
    assert torch.equal(torch.get_rng_state(), state)


@given(seed=st.integers(0, 2**31), log=st.booleans(), clip=st.booleans())
def test_preparation_keeps_every_order_and_standardises(seed, log, clip):
    draw = torch.Generator().manual_seed(seed)
    columns = torch.randn(60, 3, generator=draw, dtype=torch.float64) ** 5
    prepared = meta.prepare(columns, log=log, clip=clip)
    z = prepared(columns)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(3).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.std(dim=0, correction=0), torch.ones(3).double(), rtol=1e-9, atol=0)
    assert torch.equal(z.argsort(dim=0), columns.argsort(dim=0))
    remote = prepared(10 * columns.abs().amax(dim=0, keepdim=True))
    if clip:
        torch.testing.assert_close(remote[0], z.amax(dim=0))
    else:
        assert (remote[0] > z.amax(dim=0)).all()


def test_logarithms_bring_decades_together():
    columns = torch.tensor([[1e-8], [1e-6], [1e-4], [1e-2], [1.0]], dtype=torch.float64)
    steps = meta.prepare(columns)(columns).diff(dim=0).flatten()
    torch.testing.assert_close(steps[2], steps[3], rtol=0.05, atol=0)  # above the median, 1e-4
    odd = meta.prepare(torch.tensor([[-5.0], [0.0], [5.0]], dtype=torch.float64))
    assert odd(torch.zeros(1, 1).double()) == 0
    constant = meta.prepare(torch.full((4, 1), 7.0, dtype=torch.float64))
    assert torch.isfinite(constant(torch.tensor([[7.0], [9.0]], dtype=torch.float64))).all()


def test_importances_find_what_matters_and_groups_stand_in_for_each_other():
    columns, wrong = learnable(n=3000)
    score = meta.ridge(columns, wrong, strength=1.0)
    fresh, truth = learnable(n=3000, seed=7)
    names = ["a/l1", "a/max", "b/l1", "b/max", "c/l1", "entropy"]
    draw = torch.Generator().manual_seed(0)
    found = meta.importances(score, fresh, truth, meta.groups(names), generator=draw)
    assert set(found) == {"a/*", "b/*", "c/*", "*/l1", "*/max", "entropy"}
    assert found["a/*"] > 0.1 > 0.02 > abs(found["entropy"])
    single = meta.importances(score, fresh, truth, {"first": [0], "both": [0, 2]}, generator=draw)
    assert single["both"] > single["first"]
    lost = meta.importances(
        score, fresh, truth, {"first": [0, 2]}, generator=draw, loss=lambda p, w: float(-p[w].mean())
    )
    assert lost["first"] > 0.1
    untouched = meta.importances(score, fresh, truth, {"none": []}, generator=draw)
    assert untouched["none"] == pytest.approx(0, abs=1e-12)


def test_refusals():
    columns, wrong = learnable(n=50)
    for make in (meta.lasso, meta.ridge, meta.elastic_net):
        with pytest.raises(OptionError, match="strength: expected a positive number, got 0"):
            make(columns, wrong, strength=0.0)
    with pytest.raises(OptionError, match="strength: expected a positive number, got -1"):
        meta.path(columns, wrong, strengths=(1.0, -1.0))
    with pytest.raises(OptionError, match="units: expected at least 1, got 0"):
        meta.network(columns, wrong, units=0)
    with pytest.raises(OptionError, match="decay: expected a number of at least 0"):
        meta.network(columns, wrong, decay=-1.0)
    for option in ("count", "depth"):
        with pytest.raises(OptionError, match=f"{option}: expected at least 1, got 0"):
            meta.trees(columns, wrong, **{option: 0})
    with pytest.raises(OptionError, match=r"rate: expected a number in \(0, 1\]"):
        meta.trees(columns, wrong, rate=0.0)
    with pytest.raises(OptionError, match="repeats: expected at least 1"):
        meta.importances(lambda c: c[:, 0], columns, wrong, {}, generator=torch.Generator(), repeats=0)
    with pytest.raises(DataError, match="names: expected one for each of 6 columns, got 1"):
        meta.glm(columns, wrong, names=("one",))
    with pytest.raises(DataError, match="all 50 are wrong or OOD"):
        meta.glm(columns, torch.ones(50, dtype=torch.bool))
