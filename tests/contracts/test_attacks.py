"""What every attack promises, over the whole tables."""

import inspect
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caveat.attacks import IN_BALL, LOSSES, MINIMAL, PENALISED, QUERY, Ball, losses
from caveat.attacks.network import others_by_logit
from caveat.errors import DataError, ModelError, OptionError
from caveat.evaluation import in_eval_mode
from tests.conftest import shapes_unchecked

NORMS = (1, 2, math.inf)
LONG = {"pgd": {"steps": 100, "step": 0.3}}
"""Options with which an attack comes to its end; from a random start norm 2 turns towards the optimum by halves."""
SHORT = {
    "apgd": {"steps": 8}, "apgd_dlr": {"steps": 8}, "apgd_targeted": {"steps": 6, "targets": 2},
    "estimated": {"steps": 4, "directions": 2}, "square": {"queries": 20},
}  # fmt: skip
"""Options with which an attack that asks often is tried on many cases."""
SHAPES = ((6,), (2, 5), (1, 6, 6), (2, 3, 4, 2))


def network(shape, *, dtype=torch.float64, c=4):
    """With dropout, batch normalisation and frozen weights: what an attack must not stir."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        d = math.prod(shape)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(d, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.5), nn.Linear(24, c)
        )
        model[2].running_mean.normal_()
        model[2].running_var.uniform_(0.05, 0.2)
        model[5].weight.data.mul_(8)
    model[1].weight.requires_grad_(False)
    return model.to(dtype).eval()


def case(shape, *, dtype=torch.float64, n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n, *shape, generator=generator, dtype=dtype)
    inputs.view(-1)[: inputs.numel() // 4] = inputs.view(-1)[: inputs.numel() // 4].round()  # on the box's faces
    return network(shape, dtype=dtype), inputs, torch.randint(4, (n,), generator=generator)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def run(name, model, inputs, labels, *, ball=None, seed=1):
    """Any attack of either table: what it gives back as inputs."""
    if name in WITHIN:
        return WITHIN[name](model, inputs, labels, ball or Ball(math.inf, 0.1), generator=seeded(seed))
    return WITHOUT[name](model, inputs, labels, steps=30).inputs


def own_loss(name, model, inputs, labels):
    """What an attack climbs without being told; a point with another answer may be worth less of it."""
    if name == "apgd_targeted":
        return losses.dlr_towards(others_by_logit(model, inputs, labels)[:, 0])
    known = {"apgd": losses.soft_margin, "apgd_dlr": losses.dlr, "pgd": losses.soft_margin, "square": losses.margin}
    return known.get(name, losses.log_odds)


def with_loss(name, loss):
    return {"loss": LOSSES[loss]} if "loss" in inspect.signature(WITHIN[name]).parameters else {}


WITHIN = IN_BALL | QUERY
WITHOUT = PENALISED | MINIMAL
ALL = [*WITHIN, *WITHOUT]
OF_NORM = {"carlini": (2,), "deepfool": (2, math.inf), "fmn": NORMS}
DUAL = {1: math.inf, 2: 2, math.inf: 1}


@pytest.mark.parametrize("name", WITHIN)
class TestInBall:
    @given(
        norm=st.sampled_from(NORMS), shape=st.sampled_from(SHAPES), radius=st.sampled_from((0.01, 0.3, 2.0)),
        seed=st.integers(0, 2**31),
    )  # fmt: skip
    @settings(max_examples=15)
    def test_in_ball_and_in_box_and_harm_is_not_negative(self, name, norm, shape, radius, seed):
        for dtype in (torch.float64, torch.float32):
            model, inputs, labels = case(shape, dtype=dtype, seed=seed)
            ball = Ball(norm, radius)
            found = WITHIN[name](model, inputs, labels, ball, generator=seeded(seed), **SHORT.get(name, {}))
            assert found.dtype == dtype
            assert found.shape == inputs.shape
            assert float(found.min()) >= 0
            assert float(found.max()) <= 1
            assert (ball.distance(found, inputs) <= radius + 40 * torch.finfo(dtype).eps).all()
            climbed = own_loss(name, model, inputs, labels)
            before, after = (climbed(model(x), labels) for x in (inputs, found))
            assert ((after >= before - 1e-5) | (losses.margin(model(found), labels) > 0)).all()

    @pytest.mark.parametrize("norm", NORMS)
    def test_radius_0_gives_the_inputs(self, name, norm):
        model, inputs, labels = case((1, 6, 6))
        found = WITHIN[name](model, inputs, labels, Ball(norm, 0.0), generator=seeded())
        assert torch.equal(found, inputs)

    def test_deterministic_by_seed_and_blind_to_the_global_state(self, name):
        model, inputs, labels = case((1, 6, 6))
        first = run(name, model, inputs, labels)
        state = torch.random.get_rng_state()
        torch.rand(5)
        assert torch.equal(run(name, model, inputs, labels), first)
        torch.random.set_rng_state(state)
        assert torch.equal(torch.random.get_rng_state(), state)

    @pytest.mark.filterwarnings("ignore:pgd. the gradient is zero")  # dlr is flat where three logits decide it
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("loss", LOSSES)
    def test_a_batch_of_n_equals_n_batches_of_1(self, name, norm, loss):
        model, inputs, labels = case((1, 6, 6), n=7)
        options = {"ball": Ball(norm, 0.3), **SHORT.get(name, {}), **with_loss(name, loss)}
        together = WITHIN[name](model, inputs, labels, generator=seeded(), **options)
        generator = seeded()
        alone = [
            WITHIN[name](model, inputs[i : i + 1], labels[i : i + 1], generator=generator, **options) for i in range(7)
        ]
        # a maximum's place is known to the square root of rounding
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-8)

    def test_needs_inputs_in_the_box(self, name):
        model, inputs, labels = case((6,))
        with pytest.raises(DataError, match="the ball's box"):
            run(name, model, 2 * inputs + 1, labels)


@pytest.mark.parametrize("name", IN_BALL)
class TestWithGradient:
    @pytest.mark.parametrize("norm", NORMS)
    def test_a_linear_network_is_broken_exactly(self, name, norm):
        """Two classes: the margin is linear, so its largest rise is the radius times the dual norm of its weights."""
        generator, model = seeded(3), nn.Linear(7, 2).double().eval()
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 7, generator=generator, dtype=torch.float64))
        inputs = torch.randn(6, 7, generator=generator, dtype=torch.float64)
        labels = torch.randint(2, (6,), generator=generator)
        ball = Ball(norm, 0.3, None, None)
        found = IN_BALL[name](model, inputs, labels, ball, generator=generator, **LONG.get(name, {}))
        rise = losses.margin(model(found), labels) - losses.margin(model(inputs), labels)
        dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
        best = 0.3 * torch.linalg.vector_norm(model.weight[1] - model.weight[0], dual)
        torch.testing.assert_close(rise, best.expand(6), rtol=1e-9, atol=0)

    @pytest.mark.parametrize("norm", NORMS)
    def test_a_linear_network_in_a_box(self, name, norm):
        """The optimum there is the ball's own furthest point (tested against a linear programme and its projection)."""
        generator, model = seeded(), nn.Linear(7, 2).double().eval()
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 7, generator=generator, dtype=torch.float64))
        inputs, labels = torch.rand(6, 7, generator=generator, dtype=torch.float64), torch.tensor([0, 1] * 3)
        ball = Ball(norm, 0.6)
        weight = (model.weight[1] - model.weight[0]) * (1 - 2 * labels[:, None])
        best = losses.margin(model(ball.furthest(inputs, weight.detach())), labels)
        found = losses.margin(
            model(IN_BALL[name](model, inputs, labels, ball, generator=seeded(), **LONG.get(name, {}))), labels
        )
        gain = best - losses.margin(model(inputs), labels)
        assert (found <= best + 1e-12).all()
        # one step is exact; many come as near as weights of nearly the same size, or the least step, allow
        near = 1e-9 if name == "fgsm" else 0.05 if norm == 1 and name != "pgd" else 1e-3
        assert (best - found <= near * gain).all()


def test_more_steps_are_never_less_harm():
    model, inputs, labels = case((1, 6, 6))
    for norm in NORMS:
        harms = [
            losses.log_odds(
                model(IN_BALL["pgd"](model, inputs, labels, Ball(norm, 0.5), generator=seeded(), steps=k, step=0.05)),
                labels,
            )
            for k in (0, 1, 2, 5, 10, 20)
        ]
        for fewer, more in pairwise(harms):
            assert (more >= fewer - 1e-12).all()
        assert (harms[-1] > harms[0]).all()


@pytest.mark.parametrize("name", PENALISED)
class TestPenalised:
    def test_in_the_box_and_success_is_what_the_model_says(self, name):
        for dtype in (torch.float64, torch.float32):
            model, inputs, targets = case((1, 6, 6), dtype=dtype, n=12)
            found = PENALISED[name](model, inputs, targets, steps=50)
            assert found.inputs.dtype == dtype
            assert float(found.inputs.min()) >= 0
            assert float(found.inputs.max()) <= 1
            assert torch.equal(model(found.inputs).argmax(1) == targets, found.success)
            assert found.success.any()
            assert torch.equal(found.inputs[~found.success], inputs[~found.success])

    def test_a_batch_of_n_equals_n_batches_of_1(self, name):
        model, inputs, targets = case((1, 6, 6), n=7)
        together = PENALISED[name](model, inputs, targets, steps=40)
        for i in range(7):
            alone = PENALISED[name](model, inputs[i : i + 1], targets[i : i + 1], steps=40)
            torch.testing.assert_close(together.inputs[i : i + 1], alone.inputs, rtol=0, atol=1e-9)
            assert torch.equal(together.success[i : i + 1], alone.success)
            assert torch.equal(together.steps[i : i + 1], alone.steps)


def in_norm(name, norm):
    return {"norm": norm} if "norm" in inspect.signature(MINIMAL[name]).parameters else {}


def far(found, norm):
    return {1: found.l1, 2: found.l2, math.inf: found.linf}[norm]


@pytest.mark.parametrize("name", MINIMAL)
class TestMinimal:
    @settings(max_examples=8)
    @given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**31))
    def test_in_the_box_and_success_is_what_the_model_says(self, name, shape, seed):
        for dtype, norm in zip((torch.float64, torch.float32), (OF_NORM[name][0], OF_NORM[name][-1]), strict=True):
            model, inputs, labels = case(shape, dtype=dtype, seed=seed)
            found = MINIMAL[name](model, inputs, labels, steps=12, **in_norm(name, norm))
            assert found.inputs.dtype == dtype
            assert float(found.inputs.min()) >= 0
            assert float(found.inputs.max()) <= 1
            assert torch.equal(model(found.inputs).argmax(1) != labels, found.success)
            assert found.success.any()
            assert torch.equal(found.inputs[~found.success], inputs[~found.success])
            wrong = model(inputs).argmax(1) != labels
            assert (far(found, norm)[wrong] == 0).all()
            assert found.success[wrong].all()

    @pytest.mark.parametrize("classes", [2, 3, 6])
    def test_the_distance_to_the_border_of_a_linear_network_is_exact(self, name, classes):
        """The least gap of two logits over the dual norm of the difference of their weights, within 1 %."""
        generator, model = seeded(3), nn.Linear(20, classes).double().eval()
        with torch.no_grad():
            model.weight.copy_(torch.randn(classes, 20, generator=generator, dtype=torch.float64))
            inputs = torch.randn(30, 20, generator=generator, dtype=torch.float64)
            logits = model(inputs)
            labels = logits.argmax(1)
            gaps = logits.gather(1, labels[:, None]) - logits
            between = model.weight[None] - model.weight[labels][:, None]
        for norm in OF_NORM[name]:
            size = torch.linalg.vector_norm(between, DUAL[norm], dim=2)
            exact = (gaps / size).masked_fill(size == 0, torch.inf).amin(1)
            found = MINIMAL[name](model, inputs, labels, low=None, high=None, **in_norm(name, norm))
            assert found.success.all()
            ratio = far(found, norm) / exact
            assert float(ratio.min()) >= 1 - 1e-9
            assert float(ratio.max()) <= 1.01

    def test_a_batch_of_n_equals_n_batches_of_1(self, name):
        model, inputs, labels = case((1, 6, 6), n=7)
        for norm in OF_NORM[name]:
            together = MINIMAL[name](model, inputs, labels, steps=15, **in_norm(name, norm))
            for i in range(7):
                alone = MINIMAL[name](model, inputs[i : i + 1], labels[i : i + 1], steps=15, **in_norm(name, norm))
                torch.testing.assert_close(together.inputs[i : i + 1], alone.inputs, rtol=0, atol=1e-9)
                assert torch.equal(together.success[i : i + 1], alone.success)
                assert torch.equal(together.steps[i : i + 1], alone.steps)

    def test_needs_inputs_in_the_box_and_at_least_one_step(self, name):
        model, inputs, labels = case((6,))
        with pytest.raises(DataError, match="the ball's box"):
            MINIMAL[name](model, 2 * inputs + 1, labels)
        with pytest.raises(OptionError, match=r"steps.*expected"):
            MINIMAL[name](model, inputs, labels, steps=0)


@pytest.mark.parametrize("name", ALL)
class TestEvery:
    def test_the_model_is_left_untouched(self, name):
        model, inputs, labels = case((1, 6, 6))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        wants = [parameter.requires_grad for parameter in model.parameters()]
        copy, state = inputs.clone(), torch.random.get_rng_state()
        found = run(name, model, inputs, labels)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert [parameter.requires_grad for parameter in model.parameters()] == wants
        assert not any(module.training for module in model.modules())
        assert torch.equal(inputs, copy)
        assert not inputs.requires_grad
        assert not found.requires_grad
        assert found.data_ptr() != inputs.data_ptr()
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_gradients_the_caller_has_stay(self, name):
        model, inputs, labels = case((6,))
        model[5].weight.grad = torch.ones_like(model[5].weight)
        run(name, model, inputs, labels)
        assert (model[5].weight.grad == 1).all()

    def test_training_mode_is_refused(self, name):
        model, inputs, labels = case((6,))
        model[2].train()
        with pytest.raises(ModelError, match=r"evaluation mode, but its layer '2' is in training mode"):
            run(name, model, inputs, labels)
        with in_eval_mode(model):
            run(name, model, inputs, labels)
        assert model[2].training
        assert not model[1].training

    def test_wrong_arguments_are_refused(self, name):
        model, inputs, labels = case((6,))
        with shapes_unchecked(), pytest.raises(DataError, match="labels: expected 5 integers"):
            run(name, model, inputs, labels.double())
        with pytest.raises(DataError, match=r"classes in \[0, 4\)"):
            run(name, model, inputs, labels + 4)
        with shapes_unchecked(), pytest.raises(DataError, match="floating"):
            run(name, model, (inputs * 255).to(torch.uint8), labels)

    def test_labels_of_any_whole_type_mean_the_same(self, name):
        model, inputs, labels = case((6,))
        expected = run(name, model, inputs, labels)
        for kind in (torch.uint8, torch.int8, torch.int16, torch.int32):
            with shapes_unchecked():
                assert torch.equal(run(name, model, inputs, labels.to(kind)), expected)

    def test_a_network_without_an_answer_is_refused(self, name):
        model, inputs, labels = case((6,))
        single = nn.Linear(6, 1, dtype=torch.float64).eval()
        with pytest.raises(ModelError, match=r"two classes at least, got one.*Adapted"):
            run(name, single, inputs, torch.zeros_like(labels))
        model[5].weight.data[0, 0] = math.nan
        with pytest.raises(ModelError, match="NaN"):
            run(name, model, inputs, labels)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_stays_finite_and_within(self, name, norm, dtype):
        model, inputs, labels = case((1, 6, 6), dtype=dtype)
        ball = Ball(norm, {1: 2.0, 2: 0.3, math.inf: 0.1}[norm])
        if name == "penalised":
            with pytest.raises(OptionError, match="single or double precision"):
                run(name, model, inputs, labels)
            return
        found = run(name, model, inputs, labels, ball=ball)
        assert found.dtype == dtype
        assert bool(torch.isfinite(found).all())
        assert bool(((found >= 0) & (found <= 1)).all())
        if name in WITHIN:
            rounding = torch.finfo(dtype).eps * (inputs[0].numel() if norm == 1 else 2)
            assert (
                float(ball.distance(found.double(), inputs.double()).max()) <= ball.radius * (1 + rounding) + rounding
            )

    def test_works_for_one_sample_and_none(self, name):
        model, inputs, labels = case((6,))
        assert run(name, model, inputs[:1], labels[:1]).shape == (1, 6)
        assert run(name, model, inputs[:0], labels[:0]).shape == (0, 6)


@pytest.mark.parametrize("name", LOSSES)
class TestLosses:
    def logits(self, n=40, c=5):
        return 4 * torch.randn(n, c, generator=seeded(2), dtype=torch.float64), torch.arange(n) % c

    def test_higher_is_more_harm(self, name):
        """A larger logit of another class never lowers it; of a wrong answer of full confidence it is largest."""
        logits, labels = self.logits()
        if name == "confidence":  # what is climbed from noise: whatever the label
            labels = (logits.argmax(1) + 1) % 5
        other = logits.masked_fill(torch.nn.functional.one_hot(labels, 5).bool(), -torch.inf).argmax(1)
        raised = logits.scatter_add(1, other[:, None], torch.full((40, 1), 0.7, dtype=torch.float64))
        if name == "dlr":  # relative to the distance from the third: raise what is not the largest yet
            keep = logits.argmax(1) == labels
            logits, raised, labels = logits[keep], raised[keep], labels[keep]
        assert (LOSSES[name](raised, labels) > LOSSES[name](logits, labels)).all()

    def test_a_sample_does_not_see_the_others_and_the_level_does_not_count(self, name):
        logits, labels = self.logits()
        loss = LOSSES[name](logits, labels)
        assert loss.shape == (40,)
        alone = torch.cat([LOSSES[name](logits[i : i + 1], labels[i : i + 1]) for i in range(40)])
        torch.testing.assert_close(alone, loss, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(LOSSES[name](logits + 30, labels), loss, rtol=1e-9, atol=1e-11)

    def test_its_gradient_is_that_of_finite_differences_and_finite_where_the_answer_is_certain(self, name):
        logits, labels = self.logits(6)
        if name != "soft_margin":  # the margin's value with a slope of its own
            assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, labels), logits.requires_grad_())
        certain = (1e4 * torch.eye(5)).requires_grad_()
        LOSSES[name](certain, torch.arange(5)).sum().backward()
        assert certain.grad.isfinite().all()

    def test_float32_agrees_with_float64(self, name):
        logits, labels = self.logits()
        single = LOSSES[name](logits.float(), labels)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), LOSSES[name](logits, labels), rtol=1e-4, atol=1e-5)


def test_every_attack_module_is_in_a_table():
    from pathlib import Path

    import caveat.attacks

    helpers = {
        "__init__", "ball", "noise", "ascent", "losses", "network", "proximal", "result", "transfer", "masking",
        "radius", "spatial", "strongest", "transformation",
    }  # fmt: skip
    files = {path.stem for path in Path(caveat.attacks.__file__).parent.glob("*.py")} - helpers
    tabled = {function.__module__.rsplit(".", 1)[1] for function in (WITHIN | WITHOUT).values()}
    assert files == tabled
