"""Contract of the segmentation networks and of the regressor, and what is special to each."""

import math

import pytest
import torch
from torch import nn

from caveat import models
from caveat.errors import OptionError
from caveat.models import DENSE
from caveat.models.enet import ENet
from caveat.models.pspnet import BACKBONES

OPTIONS = {"enet": {}, "pspnet": {"backbone": "tiny"}}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str, **options) -> nn.Module:
    return DENSE[name](**{"classes": 5, "channels": 2} | OPTIONS[name] | options)


@pytest.mark.parametrize("name", DENSE)
def test_weights_depend_on_the_generator_and_on_nothing_else(name: str):
    first = make(name, generator=seeded(1))
    torch.rand(3)  # moves the global state
    before = torch.get_rng_state()
    second, other, plain, again = (make(name, generator=g) for g in (seeded(1), seeded(2), None, None))
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in ((first, second), (plain, again)):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("size", [(16, 24), (33, 47)])
def test_a_logit_for_every_pixel_of_any_size(name: str, size: tuple[int, int]):
    model = make(name).eval()
    inputs = torch.rand(3, 2, *size, generator=seeded(3))
    logits = model(inputs)
    assert logits.shape == (3, 5, *size)
    scale = logits.abs().max()
    assert torch.allclose(logits[1:2] / scale, model(inputs[1:2]) / scale, atol=1e-5)
    changed = inputs.clone()
    changed[2] = 1 - changed[2]
    difference = (model(changed) - logits).abs().amax((1, 2, 3))
    assert difference.gt(1e-4).tolist() == [False, False, True]


@pytest.mark.parametrize("name", DENSE)
def test_gradients_reach_every_weight_and_the_scale_of_logits_is_sane(name: str):
    model = make(name)
    logits = model(torch.rand(4, 2, 32, 40, generator=seeded(3)))
    assert 0.05 < logits.std() < 20
    nn.functional.cross_entropy(logits, torch.randint(0, 5, (4, 32, 40), generator=seeded())).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", DENSE)
def test_the_graph_can_be_taken(name: str):
    model = make(name).eval()
    inputs = torch.rand(2, 2, 32, 40, generator=seeded())
    program = torch.export.export(model, (inputs,))
    assert torch.allclose(program.module()(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("wrong", ["classes", "channels"])
def test_sizes_that_cannot_be(name: str, wrong: str):
    with pytest.raises(OptionError, match=rf"^{wrong}: expected at least \d, got 0"):
        make(name, **{wrong: 0})


@pytest.mark.parametrize("name", DENSE)
def test_one_scene_can_be_learnt(name: str):
    """Left of the picture one class, right the other, told apart by colour: a few steps are enough."""
    model = make(name, classes=2)
    inputs = torch.rand(2, 2, 32, 32, generator=seeded()) * 0.2
    inputs[..., 16:] += 0.7
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    labels[..., 16:] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with torch.random.fork_rng(devices=[]):
        for _ in range(25):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    assert (model(inputs).argmax(1) == labels).double().mean() > 0.9


def test_enet_is_the_papers():
    """Table 1: 0.37 million parameters; two reductions and three of size; dilations 2, 4, 8, 16, twice."""
    model = models.enet(classes=12)
    assert isinstance(model, ENet)
    assert 0.355e6 < sum(p.numel() for p in model.parameters()) < 0.375e6
    dilations = [m.dilation[0] for m in model.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert dilations == [2, 4, 8, 16, 2, 4, 8, 16]
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (5, 1) for m in model.modules()) == 4
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)]
    assert rates.count(0.01) == 5
    assert rates.count(0.1) == 17


def test_enet_unpools_to_where_it_pooled():
    up = models.enet().up5.eval()
    up.branch[-1].weight.data.zero_()  # the main branch alone
    places = torch.zeros(1, 16, 2, 2, dtype=torch.long)
    places[..., 0, 0], places[..., 0, 1], places[..., 1, 0], places[..., 1, 1] = 5, 2, 8, 15
    maps = up(torch.rand(1, 64, 2, 2, generator=seeded()), places)
    filled = maps.abs().amax((0, 1)).flatten().nonzero().flatten().tolist()
    assert set(filled) <= {2, 5, 8, 15}
    assert filled


def test_pspnet_sees_the_whole_scene_at_an_eighth():
    model = models.pspnet(classes=3, backbone="resnet18").eval()
    inputs = torch.rand(1, 3, 64, 80, generator=seeded())
    maps = model.backbone(model.stem(inputs))
    assert maps.shape == (1, 512, 8, 10)
    assert model.pyramid(maps).shape == (1, 1024, 8, 10)
    far = inputs.clone()
    far[..., :8, :8] = 1 - far[..., :8, :8]
    assert (model(far) - model(inputs))[..., -1, -1].abs().max() > 0  # from one corner to the other
    assert set(BACKBONES) == {"resnet50", "resnet18", "tiny"}
    with pytest.raises(OptionError, match="backbone: there is no 'vgg'"):
        models.pspnet(backbone="vgg")


def test_resnet50_has_its_layers():
    """53 convolutions of the deep-stem ResNet-50 and its four shortcuts, 4 + 1 of the pyramid, the head.

    Its parameters: those of the ResNet-50 without its classifier (23.5 million) with three 3x3 convolutions for the
    7x7 one, the pyramid's 4 x (2048 x 512 + 1024), and 4096 x 512 x 9 + 1024 for the fusion.
    """
    model = models.pspnet(classes=11)
    assert sum(isinstance(m, nn.Conv2d) for m in model.backbone.modules()) == 16 * 3 + 4
    assert sum(p.numel() for p in model.pyramid.parameters()) == 4 * (2048 * 512 + 1024)
    assert sum(p.numel() for p in model.fuse.parameters()) == 4096 * 512 * 9 + 1024
    assert sum(p.numel() for p in model.backbone.parameters()) == 23_498_496


def test_regressor():
    model = models.regressor(inputs=3, outputs=4, hidden=(5, 6), dropout=0.1, generator=seeded())
    assert [type(m).__name__ for m in model] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert model(torch.rand(7, 3, generator=seeded())).shape == (7, 4)
    assert model.hidden1.weight.std().item() == pytest.approx(math.sqrt(2 / 3), rel=0.5)
    plain = models.regressor(inputs=13)
    assert sum(p.numel() for p in plain.parameters()) == 13 * 50 + 50 + 50 * 2 + 2
    for wrong in ({"inputs": 0}, {"inputs": 1, "outputs": 0}, {"inputs": 1, "hidden": (0,)}):
        with pytest.raises(OptionError, match="inputs, outputs, hidden"):
            models.regressor(**wrong)
    with pytest.raises(OptionError, match="dropout"):
        models.regressor(inputs=1, dropout=1.0)
