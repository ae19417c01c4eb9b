"""Contract of every network in the table, and what is special to each."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat import models
from caveat.errors import OptionError
from caveat.models import MODELS, Normalized
from caveat.models.initialise import glorot
from caveat.models.resnet20 import ResNet20

SMALL = {"classes": 7, "channels": 2, "size": 8}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_weights_depend_on_the_generator_and_on_nothing_else(name: str):
    before = torch.get_rng_state()
    first, second, other = (MODELS[name](**SMALL, generator=seeded(seed)) for seed in (1, 1, 2))
    plain, again = (MODELS[name](**SMALL) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in ((first, second), (plain, again)):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_hes(name: str):
    for module in MODELS[name](**SMALL).modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs = module.weight[0].numel()
            # The standard deviation's own error is s / sqrt(2 N): four of these.
            tolerance = 4 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=tolerance)
            assert module.bias is None or module.bias.abs().max() == 0


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_each_picture_are_its_own_and_gradients_reach_every_weight(name: str):
    model = MODELS[name](**SMALL)
    inputs = torch.rand(4, 2, 8, 8, generator=seeded(3))
    logits = model(inputs)
    assert logits.shape == (4, 7)
    functional.cross_entropy(logits, torch.arange(4)).backward()
    # biases before a batch norm would get none; there must be none of these
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    model.eval()
    assert torch.allclose(model(inputs)[2:3], model(inputs[2:3]), atol=1e-5)
    changed = inputs.clone()
    changed[2] = 1 - changed[2]
    assert (model(changed) - model(inputs)).abs().amax(1).gt(1e-4).tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", MODELS)
def test_defaults_fit_mnist_or_cifar10(name: str):
    model = MODELS[name]().eval()
    inputs = torch.rand(2, *((3, 32, 32) if name.startswith("resnet") else (1, 28, 28)), generator=seeded())
    assert model(inputs).shape == (2, 10)
    assert model.head.out_features == 10


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_can_be_taken(name: str):
    model = MODELS[name](**SMALL).eval()
    inputs = torch.rand(3, 2, 8, 8, generator=seeded())
    program = torch.export.export(model, (inputs,))
    assert torch.allclose(program.module()(inputs), model(inputs), atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrong", ["classes", "channels", "size"])
def test_sizes_that_cannot_be(name: str, wrong: str):
    with pytest.raises(OptionError, match=rf"^{wrong}: expected at least \d, got 0"):
        MODELS[name](**{**SMALL, wrong: 0})


def test_numbers_of_parameters():
    """By hand. LeNet: 25*32+32 + 25*32*64+64 + 3136*1024+1024 + 1024*10+10.

    ResNet-20: convolutions 432 + 6*2304 + 4608+5*9216 + 18432+5*36864; norms 6*32 + 32+5*64 + 64+5*128 + 128; head 650.
    ResNet-18: the 11,173,962 that this form is known for.
    """
    assert parameters(models.lenet()) == 3_274_634
    assert parameters(models.gradient_cnn()) == 12_650  # the paper's: 160 + 2 * (9*16*16+16) + 784*10+10
    assert parameters(models.resnet20()) == 269_722
    assert parameters(models.resnet18()) == 11_173_962
    assert parameters(models.mlp(hidden=(5, 4), size=3)) == 9 * 5 + 5 + 5 * 4 + 4 + 4 * 10 + 10
    assert parameters(models.small_cnn()) == 144 + 32 + 4608 + 64 + 1568 * 128 + 128 + 1290


def test_glorots_weights():
    model = glorot(models.gradient_cnn(), seeded(1))
    weight = model.conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (144 + 144)), rel=4 / math.sqrt(2 * weight.numel()))
    assert weight.abs().max() <= math.sqrt(6 / (144 + 144))
    assert model.head.bias.abs().max() == 0
    assert torch.equal(glorot(models.gradient_cnn(), seeded(1)).head.weight, model.head.weight)


def test_mlp_is_a_matrix_product():
    model = models.mlp(hidden=(5,), size=4, classes=3).double()
    inputs = torch.rand(6, 1, 4, 4, generator=seeded(), dtype=torch.float64)
    weights = dict(model.named_parameters())
    hidden = (inputs.reshape(6, 16) @ weights["hidden1.weight"].T).clamp(min=0)
    assert torch.allclose(model(inputs), hidden @ weights["head.weight"].T, atol=1e-12)
    assert isinstance(models.mlp(hidden=())[-1], nn.Linear)
    with pytest.raises(OptionError, match="hidden: expected at least 1 unit"):
        models.mlp(hidden=(4, 0))


def test_lenet_pads_as_tensorflow_does():
    """SAME padding, two zeros all around: seen from the corner, pixel (1, 1) is one past the kernel's middle."""
    model = models.lenet()
    spot = torch.zeros(1, 1, 28, 28)
    spot[0, 0, 1, 1] = 1
    maps = model.conv1(spot)
    assert maps.shape[2:] == (28, 28)
    assert torch.allclose(maps[0, :, 0, 0], model.conv1.weight[:, 0, 3, 3])


def test_resnet20_shortcuts():
    """With all inner branches silent, the network is stem, ReLUs, poolings and zero channels: computed another way."""
    model = models.resnet20(size=8).double().eval()
    for stage in (model.stage1, model.stage2, model.stage3):
        for block in stage:
            nn.init.zeros_(block.conv2.weight)
    inputs = torch.rand(2, 3, 8, 8, generator=seeded(), dtype=torch.float64)
    scale = 1 / math.sqrt(1 + 1e-5)  # fresh running statistics: mean 0, variance 1
    maps = (model.stem(inputs) * scale).relu()  # a stage's first block: norm and ReLU before the branch
    for channels in (32, 64):
        maps = functional.avg_pool2d((maps * scale).relu(), 2)
        side = torch.zeros(2, channels // 4, *maps.shape[2:], dtype=torch.float64)
        maps = torch.cat([side, maps, side], 1)
    expected = functional.linear((maps * scale).relu().mean((2, 3)), model.head.weight, model.head.bias)
    assert torch.allclose(model(inputs), expected, atol=1e-12)


def test_resnet20_strided_convolutions_look_right_and_down():
    first = models.resnet20().stage2[0]
    spot = torch.zeros(1, 16, 4, 4)
    spot[0, :, 0, 0] = 1
    maps = first.conv1(first.pad(spot))
    assert maps.shape == (1, 32, 2, 2)
    assert torch.allclose(maps[0, :, 0, 0], first.conv1.weight[:, :, 0, 0].sum(1), atol=1e-6)
    assert maps[0, :, 1, 1].abs().max() == 0


def test_resnet20_has_nineteen_convolutions_and_a_head():
    model = models.resnet20()
    assert isinstance(model, ResNet20)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 19


def test_resnet18_blocks():
    """With the inner branches' last norms at zero only shortcuts speak."""
    model = models.resnet18(size=8).double().eval()
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4):
        for block in stage:
            nn.init.zeros_(block.norm2.weight)
    inputs = torch.rand(2, 3, 8, 8, generator=seeded(), dtype=torch.float64)
    maps = model.stem(inputs)
    for stage in (model.stage2, model.stage3, model.stage4):
        conv, norm = stage[0].shortcut
        maps = (functional.conv2d(maps[:, :, ::2, ::2], conv.weight) / math.sqrt(1 + norm.eps)).relu()
    assert torch.allclose(model(inputs), model.head(maps.mean((2, 3))), atol=1e-12)
    assert sum(isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) for module in model.modules()) == 17


def test_normalized():
    model = Normalized(nn.Identity(), (0.5, 0.25), (0.25, 0.5))
    inputs = torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)
    assert model(inputs).flatten().tolist() == [2.0, 1.5]
    assert set(model.state_dict()) == {"mean", "std"}  # they travel with the weights
    assert model.double()(inputs.double()).dtype == torch.float64
    leaf = inputs.clone().requires_grad_()
    model.float()(leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.flatten().tolist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.5, 0.0, "positive"),
        (0.5, -1.0, "positive"),
        (0.5, float("nan"), "finite"),
        (float("inf"), 1.0, "finite"),
        ((0.5, 0.5), (1.0, 1.0, 1.0), "expected 2 values, as many as means, got 3"),
    ],
)
def test_normalized_refuses(mean: float, std: float, message: str):
    with pytest.raises(OptionError, match=f"^std: .*{message}"):
        Normalized(nn.Identity(), mean, std)
