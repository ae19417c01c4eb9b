"""What evaluation mode is, over plain, scripted, traced, frozen and exported networks; nothing stays changed."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat.errors import ModelError
from caveat.evaluation import check, in_eval_mode, modes_restored, unchanged

X = torch.linspace(-1, 1, 24).reshape(6, 4)


class Net(nn.Module):
    """Has what a mode changes: as modules, and as a function."""

    def __init__(self, *, statistics: bool = True, dropout: bool = True):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4, track_running_stats=statistics)
        self.drop = nn.Dropout(0.5 if dropout else 0.0)
        self.rate = 0.5 if dropout else 0.0

    def forward(self, inputs):
        return functional.dropout(self.drop(self.norm(self.first(inputs))), self.rate, self.training)


def scripted(net):
    return torch.jit.script(net)


def traced(net):
    return torch.jit.trace(net, X, check_trace=False)


def frozen(net):
    return torch.jit.freeze(torch.jit.script(net))


def symbolic(net):
    return torch.fx.symbolic_trace(net)


def exported(net):
    return torch.export.export(net, (X,)).module()


def decomposed(net):
    return torch.export.export(net, (X,)).run_decompositions().module()


def compiled(net):
    return torch.compile(net, backend="eager")


def inside(net):
    return nn.Sequential(nn.Identity(), net).eval()


def exported_inside(net):
    outer = nn.Module()
    outer.body, outer.training = exported(net), False  # an exported network refuses eval(), also from outside
    return outer


def quantised(net):
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def plain(net):
    return net


FORMS = [plain, quantised, scripted, traced, frozen, symbolic, exported, decomposed, compiled, inside, exported_inside]
BAKED = [traced, symbolic, exported, decomposed, exported_inside]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        yield


@pytest.mark.parametrize("form", FORMS)
def test_a_network_in_evaluation_mode_passes(form):
    check(form(Net().eval()))


@pytest.mark.parametrize("form", [plain, scripted, traced, symbolic, compiled])
def test_training_mode_is_refused_and_eval_mends_it(form):
    with pytest.raises(ModelError, match=r"expected a model in evaluation mode, but it (is|was)"):
        check(form(Net().train()))
    if form not in BAKED:
        check(form(Net().train()).eval())


@pytest.mark.parametrize("form", BAKED)
def test_a_mode_that_is_part_of_the_operations_is_seen_whatever_the_flags_say(form):
    net = form(Net().train())
    for layer in net.modules():
        layer.training = False
    with pytest.raises(ModelError, match=r"was traced or exported with dropout on"):
        check(net)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_without_statistics_is_refused_in_every_form(form):
    with pytest.raises(ModelError, match=r"normalises by the batch|statistics of the batch"):
        check(form(Net(statistics=False, dropout=False).eval()))


def test_the_layer_in_training_mode_is_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Dropout())).eval()
    net[1][1].train()
    with pytest.raises(ModelError, match=r"its layer '1\.1' is in training mode: call model\.eval\(\)"):
        check(net)


def test_instance_and_group_norm_pass():
    check(nn.Sequential(nn.InstanceNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)).eval())


def state(model):
    """All that `unchanged` promises, by identity and by value."""
    return (
        [(layer, layer.training) for layer in model.modules()],
        [(p.requires_grad, None if p.grad is None else (id(p.grad), p.grad.clone())) for p in model.parameters()],
        [
            (list(layer._forward_hooks), list(layer._forward_pre_hooks), list(layer._backward_hooks))
            for layer in model.modules()
        ],
    )


def same(before, after):
    assert before[0] == after[0]
    assert before[2] == after[2]
    for (required, gradient), (required_now, gradient_now) in zip(before[1], after[1], strict=True):
        assert required == required_now
        assert (gradient is None) == (gradient_now is None)
        if gradient is not None:
            assert gradient[0] == gradient_now[0]
            assert torch.equal(gradient[1], gradient_now[1])


def disturbed(model):
    """Everything that a look may do to a network."""
    for number, layer in enumerate(model.modules()):
        layer.train(number % 2 == 0)
        layer.register_forward_hook(lambda *_: None)
        layer.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        layer.register_full_backward_hook(lambda *_: None)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 1)
        parameter.grad = torch.full_like(parameter, 7.0)
    next(model.parameters()).grad.add_(1)


def models():
    mixed = Net().eval()
    mixed.drop.train()
    mixed.first.weight.requires_grad_(False)
    hooked = Net().train()
    hooked.norm.register_forward_hook(lambda *_: None)
    hooked(X).sum().backward()
    return {
        "evaluating": Net().eval(), "training": Net().train(), "mixed": mixed, "with hook and gradient": hooked,
        "nested": nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Flatten()).eval(),
        "without parameters": nn.Sequential(nn.ReLU(), nn.Dropout()),
    }  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", models())
def test_everything_is_as_it_was_also_after_an_exception(name, fails):
    model = models()[name]
    before = state(model)
    if fails:
        with pytest.raises(KeyboardInterrupt), unchanged(model):  # noqa: PT012  # the whole block is the case
            if any(True for _ in model.parameters()):
                disturbed(model)
            else:
                model.train()
            raise KeyboardInterrupt
    else:
        with unchanged(model):
            if any(True for _ in model.parameters()):
                disturbed(model)
    same(before, state(model))


def test_a_backward_pass_within_adds_nothing_to_the_gradients():
    model = Net().eval()
    model(X).sum().backward()
    held, before = model.first.weight.grad, model.first.weight.grad.clone()
    with unchanged(model):
        assert model.first.weight.grad is None
        model(3 * X).sum().backward()
        assert not torch.equal(model.first.weight.grad, before)
    assert model.first.weight.grad is held
    assert torch.equal(held, before)


def test_a_handle_of_the_caller_still_removes_its_hook():
    model = Net().eval()
    handle = model.register_forward_hook(lambda *_: None)
    with unchanged(model):
        model.register_forward_hook(lambda *_: None)
    assert len(model._forward_hooks) == 1
    handle.remove()
    assert not model._forward_hooks


@pytest.mark.parametrize("form", [scripted, frozen, exported, compiled])
def test_other_forms_pass_through_unchanged(form):
    model = form(Net().eval())
    expected = model(X)
    with unchanged(model):
        assert torch.equal(model(X), expected)
    check(model)


def test_in_eval_mode_leaves_the_gradients_made_within():
    model = Net().train()
    model.drop.eval()
    with in_eval_mode(model):
        check(model)
        model(X).sum().backward()
    assert model.first.weight.grad is not None
    assert [layer.training for layer in model.modules()] == [True, True, True, False]


def test_modes_are_restored_module_by_module():
    model = copy.deepcopy(models()["mixed"])
    with modes_restored(model):
        model.train()
    assert [layer.training for layer in model.modules()] == [False, False, False, True]
