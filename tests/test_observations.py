"""One pass yields what the model itself gives, leaves it as it was, and refuses what cannot be right."""

import pytest
import torch
from torch import nn

from caveat import heads, observations
from caveat.errors import DataError, ModelError
from caveat.observations import observe


def conv_net(generator, *, classes=5):
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(6 * 64, 16),
        nn.ReLU(), nn.Linear(16, classes),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return net.eval()


class Named(nn.Module):
    """A head in the middle of the list of modules, called with a name of its own, behind a scaling of the input."""

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(16, 5, bias=False)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())

    def forward(self, inputs):
        return self.classify(self.trunk(inputs * 2 - 1))


def batches(generator, *, sizes=(8, 8, 3)):
    return [(torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 5) for n in sizes]


def test_observes_what_the_model_gives(generator):
    net, data = conv_net(generator), batches(generator)
    seen = observe(net, data)
    inputs = torch.cat([x for x, _ in data])
    with torch.no_grad():
        torch.testing.assert_close(seen.logits, net(inputs))
        torch.testing.assert_close(seen.features, net[:-1](inputs))
    assert seen.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2] * 2 + [0, 1, 2]
    assert not seen.logits.is_inference()


def test_on_disk_equals_in_memory(generator, tmp_path):
    net, data = conv_net(generator), batches(generator)
    in_memory = observe(net, data)
    on_disk = observe(net, data, path=tmp_path / "known.safetensors")
    in_memory.save(tmp_path / "saved.safetensors")
    saved = observations.load(tmp_path / "saved.safetensors")
    for seen in (on_disk, saved):
        assert torch.equal(seen.logits, in_memory.logits)
        assert torch.equal(seen.features, in_memory.features)
        assert torch.equal(seen.labels, in_memory.labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["known.safetensors", "saved.safetensors"]


def test_a_failed_pass_leaves_no_file(generator, tmp_path):
    bad = [*batches(generator), (torch.full((2, 1, 8, 8), torch.nan), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(DataError, match="noise: expected finite inputs"):
        observe(conv_net(generator), bad, path=tmp_path / "x.safetensors", name="noise")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_left_as_it_was(generator):
    net = conv_net(generator)
    net[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rng = torch.random.get_rng_state()
    observe(net, batches(generator))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not net.training
    assert not net[0].weight.requires_grad
    assert net[7].weight.requires_grad
    assert net[7].weight.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(rng, torch.random.get_rng_state())


class TestHead:
    def test_found_by_what_it_computes_not_by_its_place(self, generator):
        net = Named().eval()
        layer = heads.find(net, torch.rand(4, 1, 8, 8, generator=generator))
        assert layer.name == "classify"
        assert torch.equal(layer.head[0], net.classify.weight)
        assert torch.equal(layer.head[1], torch.zeros(5))

    def test_pooled_1x1_convolution(self, generator):
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ).eval()
        data = batches(generator)
        layer = heads.find(net, data[0][0])
        assert (layer.name, layer.pooled) == ("2", True)
        seen = observe(net, data)
        weight, bias = layer.head
        torch.testing.assert_close(seen.features @ weight.T + bias, seen.logits, rtol=1e-4, atol=1e-5)

    def test_logits_are_the_head_of_the_features(self, generator):
        net, data = conv_net(generator), batches(generator)
        weight, bias = heads.find(net, data[0][0]).head
        seen = observe(net, data)
        torch.testing.assert_close(seen.features @ weight.T + bias, seen.logits, rtol=1e-4, atol=1e-5)

    def test_a_wrong_name_is_answered_with_the_nearest(self, generator):
        with pytest.raises(ModelError, match="head: the model has no layer 'clasify'; did you mean 'classify'"):
            heads.find(Named().eval(), torch.rand(2, 1, 8, 8), name="clasify")

    def test_a_layer_that_is_no_head_is_refused(self, generator):
        with pytest.raises(ModelError, match=r"head: layer '5' \(Linear\) does not produce"):
            observe(conv_net(generator), batches(generator), head="5")

    def test_a_model_without_a_head_still_gives_logits(self, generator):
        net = nn.Sequential(conv_net(generator), nn.Softplus()).eval()
        with pytest.raises(ModelError, match="found no linear or 1x1-convolution layer"):
            observe(net, batches(generator))
        assert observe(net, batches(generator), features=False).features is None


def test_dense_models_give_maps(generator):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    data = [(torch.rand(2, 1, 8, 8, generator=generator), torch.zeros(2, 8, 8, dtype=torch.long)) for _ in range(2)]
    seen = observe(net, data)
    assert seen.logits.shape == (4, 3, 8, 8)
    assert seen.features is None


@pytest.mark.parametrize("layer", ["model", "batch norm", "dropout"])
def test_training_mode_is_refused(generator, layer):
    net = conv_net(generator)
    {"model": net, "batch norm": net[1], "dropout": net[4]}[layer].train()
    with pytest.raises(ModelError, match=r"in training mode: call model.eval\(\)"):
        observe(net, batches(generator))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "test: expected at least one batch"),
        (
            [(torch.rand(3, 1, 8, 8), torch.zeros(2, dtype=torch.long))],
            "test: expected one label per input, got inputs of shape \\(3",
        ),
        ([(torch.rand(2, 1, 8, 8), torch.zeros(2) + 0.5)], "test: expected integer labels"),
        ([(torch.rand(2, 1, 9, 8), torch.zeros(2, dtype=torch.long))], r"the model fails on inputs of shape \(2, 1, 9"),
        ([(torch.full((2, 1, 8, 8), torch.inf), torch.zeros(2, dtype=torch.long))], "expected finite inputs"),
    ],
)
def test_bad_batches_are_refused(generator, batch, message):
    with pytest.raises(DataError, match=message):
        observe(conv_net(generator), batch, name="test")


def test_what_is_no_classifier_is_refused(generator):
    class Pair(nn.Module):
        def forward(self, inputs):
            return inputs, inputs

    data = batches(generator)
    with pytest.raises(ModelError, match=r"expected logits \(n, c\), got a tuple \(0: \(\d+, 1, 8, 8\)"):
        observe(Pair().eval(), data)
    broken = conv_net(generator)
    nn.init.constant_(broken[7].bias, torch.nan)
    with pytest.raises(ModelError, match="expected finite logits, got NaN or infinity on inputs"):
        observe(broken, data)


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"x" * 50, lambda _: b""])
def test_a_damaged_file_is_refused(generator, tmp_path, damage):
    path = tmp_path / "o.safetensors"
    observe(conv_net(generator), batches(generator), path=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="path: cannot read"):
        observations.load(path)
