"""What every score promises, over the whole tables. A method that cannot keep a promise stands in another table."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import caveat.scores
from caveat import fitted
from caveat.errors import DataError
from caveat.observations import observe
from caveat.scores import (
    FROM_COLUMNS,
    FROM_FEATURES,
    FROM_GRADIENTS,
    FROM_HEAD,
    FROM_KNOWN_LOGITS,
    FROM_LOGITS,
    FROM_MOMENTS,
    FROM_RAW_LOGITS,
    gradients,
    moments,
)
from tests.conftest import shapes_unchecked

LOGITS = FROM_LOGITS | FROM_RAW_LOGITS
FITTED = [*FROM_FEATURES, *FROM_HEAD, *FROM_MOMENTS]


def gaussian_classes(generator, *, n=400, d=12, c=4, dtype=torch.float64):
    labels = torch.arange(n) % c
    centres = 3 * torch.randn(c, d, generator=generator, dtype=dtype)
    mixing = torch.randn(d, d, generator=generator, dtype=dtype) / d**0.5 + torch.eye(d, dtype=dtype)
    features = centres[labels] + torch.randn(n, d, generator=generator, dtype=dtype) @ mixing
    head = (centres, -0.5 * centres.square().sum(dim=1))
    return features, labels, head


def activations(generator, *, n=400):
    """What a trained network has before its head: each of 4 classes excites 6 units of its own; 6 units are idle."""
    labels = torch.arange(n) % 4
    pattern = torch.cat([torch.eye(4).repeat_interleave(6, dim=1), torch.zeros(4, 6)], dim=1).double()
    noise = torch.randn(n, 30, generator=generator, dtype=torch.float64)
    noise[:, 24:] *= 0.1
    features = (4 * pattern[labels] + 0.5 * noise).relu()
    weight = pattern - 0.2 * (1 - pattern)
    return features, labels, (weight, torch.full((4,), -1.0, dtype=torch.float64))


def foreign(generator, *, n=300):
    """Weak, diffuse activations, and some of units that in-distribution inputs do not use."""
    features = (0.4 + 0.2 * torch.randn(n, 30, generator=generator, dtype=torch.float64)).relu()
    features[:, 24:] += 0.6
    return features


def fit(name, features, labels, head):
    if name in FROM_MOMENTS:
        return FROM_MOMENTS[name](moments.of(features, labels), dtype=features.dtype)
    if name in FROM_FEATURES:
        return FROM_FEATURES[name](features, labels)
    return FROM_HEAD[name](features, labels, head)


def sample_logits(seed, n=64, c=7, scale=4.0, dtype=torch.float64):
    return scale * torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", LOGITS)
class TestFromLogits:
    def test_higher_means_less_trustworthy(self, name):
        sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.5, 0.0]])
        assert LOGITS[name](sure) < LOGITS[name](unsure)

    @given(seed=st.integers(0, 2**31), c=st.integers(2, 130))
    def test_a_sample_does_not_see_the_others(self, name, seed, c):
        logits = sample_logits(seed, n=5, c=c)
        one_by_one = torch.cat([LOGITS[name](row[None]) for row in logits])
        torch.testing.assert_close(LOGITS[name](logits), one_by_one, rtol=1e-12, atol=1e-12)

    @given(seed=st.integers(0, 2**31))
    def test_the_order_of_classes_is_irrelevant(self, name, seed):
        logits = sample_logits(seed)
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(LOGITS[name](logits), LOGITS[name](logits[:, order]), rtol=1e-12, atol=1e-12)

    def test_finite_at_extreme_logits(self, name):
        logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [1e4, 0.0, 0.0]])
        assert torch.isfinite(LOGITS[name](logits)).all()

    def test_float32_agrees_with_float64(self, name):
        logits = sample_logits(3, n=500, dtype=torch.float32, scale=8.0)
        torch.testing.assert_close(LOGITS[name](logits).double(), LOGITS[name](logits.double()), rtol=2e-5, atol=1e-6)

    def test_dense_is_the_same_per_pixel(self, name):
        logits = sample_logits(5, n=24).view(2, 3, 4, 7).permute(0, 3, 1, 2)
        flat = LOGITS[name](logits.permute(0, 2, 3, 1).reshape(-1, 7))
        torch.testing.assert_close(LOGITS[name](logits).flatten(), flat, rtol=1e-12, atol=1e-12)

    def test_gradient_is_finite(self, name):
        logits = sample_logits(1).requires_grad_()
        LOGITS[name](logits).sum().backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FROM_LOGITS)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_a_constant_added_to_all_logits_changes_nothing(name, seed, shift):
    logits = sample_logits(seed)
    torch.testing.assert_close(FROM_LOGITS[name](logits), FROM_LOGITS[name](logits + shift), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FROM_RAW_LOGITS)
def test_the_level_of_the_logits_counts(name):
    logits = sample_logits(0)
    torch.testing.assert_close(FROM_RAW_LOGITS[name](logits + 2), FROM_RAW_LOGITS[name](logits) - 2)


@pytest.mark.parametrize("name", FITTED)
class TestFitted:
    def test_foreign_is_less_trustworthy_than_known(self, name, generator):
        features, labels, head = activations(generator)
        score = fit(name, features, labels, head)
        assert score(foreign(generator)).median() > score(features).quantile(0.9)

    def test_is_a_frozen_dataclass_and_survives_saving(self, name, generator, tmp_path: Path):
        features, labels, head = gaussian_classes(generator, dtype=torch.float32)
        score = fit(name, features, labels, head)
        assert dataclasses.is_dataclass(score)
        assert type(score).__dataclass_params__.frozen
        fitted.save(score, tmp_path / "score.safetensors")
        again = fitted.load(type(score), tmp_path / "score.safetensors")
        assert torch.equal(score(features), again(features))

    def test_the_order_of_the_fit_set_is_irrelevant(self, name, generator):
        features, labels, head = gaussian_classes(generator)
        order = torch.randperm(len(features), generator=generator)
        a, b = fit(name, features, labels, head), fit(name, features[order], labels[order], head)
        torch.testing.assert_close(a(features), b(features), rtol=1e-7, atol=1e-7)

    def test_a_sample_does_not_see_the_others(self, name, generator):
        features, labels, head = gaussian_classes(generator)
        score = fit(name, features, labels, head)
        one_by_one = torch.cat([score(row[None]) for row in features[:20]])
        torch.testing.assert_close(score(features)[:20], one_by_one, rtol=1e-9, atol=1e-9)

    def test_float32_agrees_with_float64(self, name, generator):
        features, labels, head = gaussian_classes(generator)
        exact = fit(name, features, labels, head)(features)
        single = fit(name, features.float(), labels, (head[0].float(), head[1].float()))(features.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-3)

    def test_dead_features_do_no_harm(self, name, generator):
        features, labels, head = gaussian_classes(generator)
        features[:, 3] = 0
        assert torch.isfinite(fit(name, features, labels, head)(features)).all()

    def test_refuses_nan_an_empty_set_and_lengths_that_differ(self, name, generator):
        features, labels, head = gaussian_classes(generator)
        with pytest.raises(DataError, match="features: expected at least one"):
            fit(name, features[:0], labels[:0], head)
        with shapes_unchecked(), pytest.raises(DataError, match="labels: expected one per sample"):
            fit(name, features, labels[:-1], head)
        features[7, 2] = torch.nan
        with pytest.raises(DataError, match="features: expected finite"):
            fit(name, features, labels, head)


@pytest.mark.parametrize("name", FROM_KNOWN_LOGITS)
class TestFromKnownLogits:
    def known(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(8)
        labels = torch.arange(500) % 5
        logits = 2 * torch.randn(500, 5, generator=generator, dtype=dtype)
        logits[torch.arange(500), labels] += 6
        return logits, labels

    def test_usual_answers_are_more_trustworthy_than_unusual_ones(self, name):
        logits, labels = self.known()
        score = FROM_KNOWN_LOGITS[name](logits, labels)
        unusual = 2 + torch.randn(300, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert score(unusual).median() > score(logits).quantile(0.8)

    def test_a_sample_does_not_see_the_others(self, name):
        logits, labels = self.known()
        score = FROM_KNOWN_LOGITS[name](logits, labels)
        one_by_one = torch.cat([score(row[None]) for row in logits[:20]])
        torch.testing.assert_close(score(logits)[:20], one_by_one, rtol=1e-10, atol=1e-12)

    def test_the_order_of_the_fit_set_is_irrelevant(self, name):
        logits, labels = self.known()
        order = torch.randperm(500, generator=torch.Generator().manual_seed(2))
        a, b = FROM_KNOWN_LOGITS[name](logits, labels), FROM_KNOWN_LOGITS[name](logits[order], labels[order])
        torch.testing.assert_close(a(logits), b(logits), rtol=1e-8, atol=1e-10)

    def test_saving_float32_and_extremes(self, name, tmp_path: Path):
        logits, labels = self.known(torch.float32)
        score = FROM_KNOWN_LOGITS[name](logits, labels)
        fitted.save(score, tmp_path / "s.safetensors")
        assert torch.equal(fitted.load(type(score), tmp_path / "s.safetensors")(logits), score(logits))
        exact = FROM_KNOWN_LOGITS[name](logits.double(), labels)(logits.double())
        torch.testing.assert_close(score(logits).double(), exact, rtol=2e-3, atol=1e-5)
        extreme = torch.tensor([[1e4, -1e4, 0.0, 0.0, 0.0], [0.0] * 5, [1e4] * 5])
        assert torch.isfinite(score(extreme)).all()

    def test_refuses_nan_and_an_empty_set(self, name):
        logits, labels = self.known()
        with pytest.raises(DataError, match="logits: expected at least one"):
            FROM_KNOWN_LOGITS[name](logits[:0], labels[:0])
        logits[3, 1] = torch.nan
        with pytest.raises(DataError, match="logits: expected finite"):
            FROM_KNOWN_LOGITS[name](logits, labels)


@pytest.mark.parametrize("name", FROM_GRADIENTS)
class TestFromGradients:
    """A network of two layers that is sure far along an axis, and unsure between the classes."""

    def look(self, inputs, *, dtype=torch.float64):
        net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(dtype).eval()
        draw = torch.Generator().manual_seed(4)
        for parameter in net.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(dtype)
        inputs = inputs.to(dtype)
        probe = gradients.probe(net, inputs)
        labels = torch.zeros(len(inputs), dtype=torch.long)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        seen = observe(net, [(inputs, labels)], features=False, probes={"gradients": probe})
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())
        return seen

    def samples(self, n=200):
        return torch.randn(n, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def test_higher_means_less_trustworthy(self, name):
        seen = self.look(self.samples())
        score = FROM_GRADIENTS[name](seen.probed["gradients"])
        sure = seen.logits.softmax(dim=1).amax(dim=1)
        assert score[sure < 0.6].median() > 3 * score[sure > 0.95].median()

    def test_a_sample_does_not_see_the_others(self, name):
        inputs = self.samples(7)
        alone = [FROM_GRADIENTS[name](self.look(row[None]).probed["gradients"]) for row in inputs]
        together = FROM_GRADIENTS[name](self.look(inputs).probed["gradients"])
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-14)

    def test_float32_agrees_with_float64(self, name):
        exact = FROM_GRADIENTS[name](self.look(self.samples()).probed["gradients"])
        single = FROM_GRADIENTS[name](self.look(self.samples(), dtype=torch.float32).probed["gradients"])
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-5)

    def test_finite_where_the_answer_is_certain(self, name):
        score = FROM_GRADIENTS[name](self.look(1000 * self.samples(20), dtype=torch.float32).probed["gradients"])
        assert torch.isfinite(score).all()


@pytest.mark.parametrize("name", FROM_COLUMNS)
class TestFromColumns:
    """Two columns matter, one of them over many decades; two are noise, one is constant."""

    def columns(self, *, n=600, seed=0, dtype=torch.float64):
        draw = torch.Generator().manual_seed(seed)
        hidden = torch.randn(n, 4, generator=draw, dtype=torch.float64)
        wrong = hidden[:, 0] + 0.5 * hidden[:, 1] + 0.5 * torch.randn(n, generator=draw, dtype=torch.float64) > 1.2
        columns = torch.cat([(4 * hidden[:, :1]).exp(), hidden[:, 1:], torch.full((n, 1), 3.0)], dim=1)
        return columns.to(dtype), wrong

    def test_wrong_answers_are_less_trustworthy_on_fresh_data(self, name):
        score = FROM_COLUMNS[name](*self.columns())
        columns, wrong = self.columns(seed=1)
        probs = score(columns)
        assert ((probs >= 0) & (probs <= 1)).all()
        assert probs[wrong].mean() > 0.5 > 0.12 > probs[~wrong].mean()
        assert abs(probs.mean() - wrong.double().mean()) < 0.05  # they are probabilities

    def test_a_sample_does_not_see_the_others(self, name):
        columns, wrong = self.columns()
        score = FROM_COLUMNS[name](columns, wrong)
        one_by_one = torch.cat([score(row[None]) for row in columns[:20]])
        torch.testing.assert_close(score(columns)[:20], one_by_one, rtol=1e-12, atol=1e-14)

    def test_survives_saving_and_float32(self, name, tmp_path: Path):
        columns, wrong = self.columns(dtype=torch.float32)
        score = FROM_COLUMNS[name](columns, wrong, names=("a", "b", "c", "d", "e"))
        assert type(score).__dataclass_params__.frozen
        fitted.save(score, tmp_path / "score.safetensors")
        again = fitted.load(type(score), tmp_path / "score.safetensors")
        assert torch.equal(score(columns), again(columns))
        assert again.names == ("a", "b", "c", "d", "e")
        assert score(columns).dtype == torch.float32
        torch.testing.assert_close(score(columns).double(), score(columns.double()), rtol=1e-5, atol=1e-6)

    def test_remote_columns_have_finite_answers(self, name):
        score = FROM_COLUMNS[name](*self.columns())
        remote = torch.tensor([[1e30, -1e30, 1e300, 0.0, 0.0], [0.0] * 5], dtype=torch.float64)
        assert torch.isfinite(score(remote)).all()

    def test_refuses_nan_an_empty_set_and_only_one_kind(self, name):
        columns, wrong = self.columns(n=50)
        with pytest.raises(DataError, match="columns: expected scores"):
            FROM_COLUMNS[name](columns[:0], wrong[:0])
        with pytest.raises(DataError, match="wrong: expected right answers and wrong or OOD ones, all 50 are right"):
            FROM_COLUMNS[name](columns, torch.zeros(50, dtype=torch.bool))
        with shapes_unchecked(), pytest.raises(DataError, match="wrong: expected 50 booleans"):
            FROM_COLUMNS[name](columns, wrong[:-1])
        columns[7, 2] = torch.nan
        with pytest.raises(DataError, match="columns: expected finite scores, column c is not"):
            FROM_COLUMNS[name](columns, wrong, names=("a", "b", "c", "d", "e"))


def test_every_module_is_in_a_table():
    helpers = {"__init__", "moments", "logits", "draws", "regression", "evidential", "pooled", "activations"}
    helpers |= {"distribution"}  # what regression networks predict; its scores are in `UNCERTAINTIES`
    helpers |= {"mc_dropout"}  # makes the draws that `FROM_DROPOUT` scores
    modules = {path.stem for path in Path(caveat.scores.__file__).parent.glob("*.py")} - helpers
    rows = [row for name in caveat.scores.__all__ if name.isupper() for row in getattr(caveat.scores, name).values()]
    functions = [row[-1] if isinstance(row, tuple) else row for row in rows]
    assert modules == {function.__module__.split(".")[2] for function in functions} - {*helpers, "gradients", "meta"}
