"""The network with two answers: logits as of a classifier, pictures as of an autoencoder, from one encoder."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat.errors import OptionError
from caveat.models import JOINT, WithAutoencoder, denoising_classifier
from caveat.objectives.denoising import Joint
from caveat.types import Reconstructing

SMALL = {"classes": 7, "channels": 2, "size": 9, "width": 3}  # 9 is halved to 5 and to 3


def test_logits_and_pictures_from_one_pass_through_the_encoder(generator):
    model = denoising_classifier(**SMALL, generator=generator).eval()
    inputs = torch.rand(4, 2, 9, 9, generator=generator)
    passes = []
    model.stage3.register_forward_hook(lambda *_: passes.append(1))
    logits, images = model.both(inputs)
    assert len(passes) == 1
    assert logits.shape == (4, 7)
    assert images.shape == inputs.shape
    assert torch.equal(logits, model(inputs))
    assert torch.equal(images, model.reconstruct(inputs))
    assert ((images > 0) & (images < 1)).all()
    assert images.std() > 0.01


def test_each_picture_is_for_itself_and_both_losses_reach_every_weight(generator):
    model = denoising_classifier(**SMALL, generator=generator)
    inputs = torch.rand(4, 2, 9, 9, generator=generator)
    logits, images = model.both(inputs)
    (functional.cross_entropy(logits, torch.arange(4)) + (images - inputs).square().mean()).backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())
    model.zero_grad()
    (model.reconstruct(inputs) - inputs).square().mean().backward()
    assert model.stem[0].weight.grad.abs().max() > 0  # shared
    assert model.head.weight.grad is None
    model.eval()
    torch.testing.assert_close(model.reconstruct(inputs)[2:3], model.reconstruct(inputs[2:3]), rtol=1e-4, atol=1e-5)


def test_the_widths_are_the_sources():
    """Stem and three stages of two blocks, of w, 2w and 4w channels, as in a ResNet-18 without its last stage."""
    model = denoising_classifier(width=5)
    convolutions = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "decoder" not in name]
    assert [c.out_channels for c in convolutions if c.kernel_size == (3, 3)] == [5] * 5 + [10] * 4 + [20] * 4
    assert model.head.in_features == 20
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", JOINT)
def test_the_table_holds_joint_networks_whose_weights_depend_on_the_generator_alone(name):
    before = torch.get_rng_state()
    first, second, other = (
        JOINT[name](classes=3, channels=1, size=8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(first, Joint)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    with pytest.raises(OptionError, match="size: expected at least 8"):
        JOINT[name](size=7)


def test_no_network_without_width():
    with pytest.raises(OptionError, match="width: expected at least 1, got 0"):
        denoising_classifier(width=0)


def test_any_network_and_any_autoencoder():
    network, half = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.Threshold(0.5, 0.0)
    model = WithAutoencoder(network, half)
    inputs = torch.tensor([[[[0.2, 0.6], [0.9, 0.4]]]])
    logits, images = model.both(inputs)
    assert torch.equal(model(inputs), network(inputs))
    assert torch.equal(logits, network(inputs))
    assert images.flatten().tolist() == pytest.approx([0.0, 0.6, 0.9, 0.0])
    assert torch.equal(model.reconstruct(inputs), images)
    assert isinstance(model, Reconstructing)
    assert not isinstance(network, Reconstructing)
