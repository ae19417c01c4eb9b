"""Classifiers of transformers get the pixels that their own image processors would give them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from caveat.errors import ModelError
from caveat.models.hub import prepared


class Seen(nn.Module):
    """Called as transformers' networks are; its logits are the pixels."""

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=pixel_values.flatten(1))


PLAIN = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False, "image_mean": [0.5] * 3}
USUAL = PLAIN | {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.5]}
INPUTS = torch.tensor([0.2, 0.4, 1.0]).view(1, 3, 1, 1)  # as bytes 51, 102, 255


@pytest.mark.parametrize(
    ("says", "right"),
    [
        (USUAL, [-0.6, 0.0, 1.4]),
        (PLAIN, [0.2, 0.4, 1.0]),  # means that are named, and not used, were subtracted
        (PLAIN | {"rescale_factor": 1 / 127.5}, [0.4, 0.8, 2.0]),
        (PLAIN | {"rescale_factor": 1 / 127.5, "rescale_offset": True}, [-0.6, -0.2, 1.0]),
        (PLAIN | {"do_rescale": False}, [51.0, 102.0, 255.0]),
        (PLAIN | {"do_flip_channel_order": True}, [1.0, 0.4, 0.2]),
    ],
    ids=["usual", "no normalisation", "rescaled", "with an offset", "in bytes", "blue first"],
)
def test_pixels_are_those_of_the_processor(says, right):
    found = prepared(Seen(), SimpleNamespace(**says))(INPUTS)
    torch.testing.assert_close(found, torch.tensor([right]))


def test_an_order_that_is_not_known_is_refused():
    with pytest.raises(ModelError, match="normalises and turns the order"):
        prepared(Seen(), SimpleNamespace(**USUAL, do_flip_channel_order=True))


def test_networks_of_timm_come_by_name_with_their_normalisation(monkeypatch):
    import sys

    from caveat.cli.model import load

    made = []

    def create_model(name, *, pretrained):
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})\nmore")
        made.append(pretrained)
        network = nn.Flatten()
        network.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.5)}
        return network

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    network = load("timm:tiny")
    torch.testing.assert_close(network(INPUTS), torch.tensor([[-0.6, 0.0, 1.4]]))
    assert made == [True]
    with pytest.raises(ModelError, match=r"cannot make timm:huge \(Unknown model \(huge\)\)"):
        load("timm:huge")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="needs the package timm"):
        load("timm:tiny")
