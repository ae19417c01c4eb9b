"""What every score promises as audits and guards use it: every row of every kind, on one small world of pictures."""

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor

from caveat import fitted
from caveat.errors import CaveatError
from caveat.observations import Observations, observe
from caveat.scores import FROM_MAPS
from caveat.scoring import catalog
from caveat.scoring.kinds import Material, kind_of
from caveat.scoring.plan import plan
from tests.conftest import shapes_unchecked
from tests.contracts.world import World, pictures, world

NAMES = list(catalog.families())
FITTED = [name for name in NAMES if catalog.fitted_class(name)]
SET_ASIDE = ("gram", "meta_glm", "meta_lasso", "meta_elastic_net", "meta_network", "meta_trees")
"""Those whose fit holds a part of its samples back, or draws folds; which ones follows from their order."""
PROBING = [name for name in NAMES if kind_of(name).probe]
NEAR, FAR = pictures(270, seed=1)[0], pictures(200, seed=2, far=True)[0]


def world_of(name: str, dtype: torch.dtype = torch.float64) -> World:
    return world(many=kind_of(name).from_draws, dtype=dtype)


@cache
def look(many: bool, *, far: bool = False, batch: int = 256, dtype: torch.dtype = torch.float64) -> Observations:
    inputs = FAR if far else NEAR[:40] if batch == 1 else NEAR
    return world(many=many, dtype=dtype).look(inputs, batch=batch)


@cache
def fit(name: str, dtype: torch.dtype = torch.float64) -> catalog.FittedScore:
    return world_of(name, dtype).fit(name)


def near_and_far(name: str, score: catalog.FittedScore, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    many = kind_of(name).from_draws
    near, far = (score(look(many, far=far, dtype=dtype)) for far in (False, True))
    return near, far


def auroc(near: Tensor, far: Tensor) -> float:
    higher, equal = far[:, None] > near, far[:, None] == near
    return float((higher.double() + equal.double() / 2).mean())


def with_nan(observed: Observations) -> Observations:
    """One sample of every signal is NaN."""

    def broken(signal: Tensor) -> Tensor:
        changed = signal.clone()
        changed[7] = torch.nan
        return changed

    probed = {name: broken(signal) for name, signal in observed.probed.items()}
    features = None if observed.features is None else broken(observed.features)
    return dataclasses.replace(observed, logits=broken(observed.logits), features=features, probed=probed)


def as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float64 else tensor


@pytest.mark.parametrize("name", NAMES)
def test_far_is_less_trustworthy_than_near(name):
    near, far = near_and_far(name, fit(name))
    assert near.shape == (270,)
    assert near.isfinite().all()
    assert far.isfinite().all()
    assert auroc(near, far) > 0.7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 7])
def test_a_sample_does_not_see_the_others(name, batch):
    many, score = kind_of(name).from_draws, fit(name)
    whole, seen = score(look(many)), look(many, batch=batch)
    alone = torch.cat([score(seen.part(part)) for part in torch.arange(len(seen)).split(batch)])
    torch.testing.assert_close(alone, whole[: len(seen)], rtol=1e-4, atol=1e-6 * float(whole.std()))


def permuted(name: str) -> tuple[Tensor, Tensor]:
    """Scores of all samples, and those after a fit on the same data in another order."""
    one = world_of(name)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    train, held_out = one.material.train.part(order), one.material.held_out.part(order)
    other = one.fit(name, dataclasses.replace(one.material, train=train, held_out=held_out))
    return torch.cat(near_and_far(name, fit(name))), torch.cat(near_and_far(name, other))


@pytest.mark.parametrize("name", [name for name in FITTED if name not in SET_ASIDE])
def test_the_order_of_the_fit_set_is_irrelevant(name):
    scores, others = permuted(name)
    torch.testing.assert_close(others, scores, rtol=1e-6, atol=1e-5 * float(scores.std()))


@pytest.mark.parametrize("name", SET_ASIDE)
def test_which_samples_are_set_aside_in_fitting_matters_little(name):
    ranks = torch.stack([scores.argsort().argsort().double() for scores in permuted(name)])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.9


@pytest.mark.parametrize("name", FITTED)
def test_it_is_frozen_and_survives_a_file(name, tmp_path):
    score = fit(name)
    assert type(score.fitted).__dataclass_params__.frozen
    fitted.save(score.fitted, tmp_path / "score.safetensors")
    again = catalog.restored(name, fitted.load(catalog.fitted_class(name), tmp_path / "score.safetensors"))
    observed = look(kind_of(name).from_draws, far=True)
    assert torch.equal(again(observed), score(observed))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FITTED])
def test_what_is_not_fitted_needs_no_file(name):
    observed = look(kind_of(name).from_draws, far=True)
    assert torch.equal(catalog.restored(name, None)(observed), fit(name)(observed))


@pytest.mark.parametrize("name", PROBING)
def test_its_probe_is_frozen_and_survives_a_file(name, tmp_path):
    one, signal = world_of(name), catalog.signal(name)
    probe = one.plan.probes[signal]
    assert type(probe).__dataclass_params__.frozen
    fitted.save(probe, tmp_path / "probe.safetensors")
    again = fitted.load(catalog.probe_class(name), tmp_path / "probe.safetensors")
    batch = [(NEAR[:20], torch.zeros(20, dtype=torch.long))]
    a, b = (observe(one.model, batch, features=False, probes={signal: each}).probed[signal] for each in (probe, again))
    assert torch.equal(a, b)
    assert a.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    score = fit(name)
    exact = torch.cat(near_and_far(name, score))
    if name in FITTED:  # the same fit: what is learned from rounded numbers is compared below
        score = catalog.restored(name, fitted.mapped(score.fitted, as_float32))
    single = torch.cat(near_and_far(name, score, torch.float32))
    assert single.dtype == torch.float32
    # a count of visits may find a neighbour's bin
    near_enough = torch.isclose(single.double(), exact, rtol=1e-3, atol=1e-3 * float(exact.std()))
    assert near_enough.double().mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_fitted_in_float32_it_finds_as_much(name):
    exact = auroc(*near_and_far(name, fit(name)))
    single = auroc(*near_and_far(name, fit(name, torch.float32), torch.float32))
    assert single == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("name", [name for name in FITTED if name not in FROM_MAPS])  # which take the head alone
def test_nan_an_empty_set_and_lengths_that_differ_are_refused(name):
    one = world_of(name)

    def fit_on(change):
        with shapes_unchecked():
            train, held_out = (change(part) for part in (one.material.train, one.material.held_out))
            return one.fit(name, Material(train, one.material.head, held_out))

    fit_on(lambda part: part)
    with pytest.raises(CaveatError, match="expected"):
        fit_on(with_nan)
    with pytest.raises(CaveatError, match="expected"):
        fit_on(lambda part: part.part(torch.arange(0)))
    if not kind_of(
        name
    ).learns_mistakes:  # whose columns and mistakes come from one pass; by themselves: TestFromColumns
        with pytest.raises(CaveatError, match="expected"):
            fit_on(lambda part: dataclasses.replace(part, labels=part.labels[:-1]))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(name):
    one = world_of(name)
    model, inputs = one.model, NEAR[:12].clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [dict(layer._forward_hooks) for layer in model.modules()]
    rng = torch.get_rng_state()
    planned = plan([name], model, inputs, options=lambda: (inputs, torch.arange(12) % 4), explicit=[name])
    seen = observe(model, [(inputs, torch.arange(12) % 4)], head=planned.head, probes=planned.probes)
    fit(name)(seen)
    assert torch.equal(inputs, NEAR[:12])
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all((parameter.grad == 1).all() and parameter.requires_grad for parameter in model.parameters())
    assert hooks == [dict(layer._forward_hooks) for layer in model.modules()]
    assert not any(layer.training for layer in model.modules())
    model.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_what_its_kind_says(name):
    kind, score, seen = kind_of(name), fit(name), look(kind_of(name).from_draws)
    if kind.needs_features or kind.signal or kind.probe:
        with pytest.raises(CaveatError, match="lack the"):
            score(Observations(seen.logits, seen.labels))
    else:
        assert torch.equal(score(Observations(seen.logits, seen.labels)), score(seen))
