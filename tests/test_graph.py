"""The list of operations gives what the model gives, however it is written; what it cannot say is refused by name."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat import models
from caveat.errors import DataError, ModelError
from caveat.graph import EVALUATE, Conv, Linear, MaxPool, Relu, Scale, Sum, trace


class Written(nn.Module):
    """A forward pass as a function."""

    def __init__(self, forward: Callable, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.register_buffer("shift", torch.linspace(-1, 1, 3).reshape(3, 1, 1))
        self.register_buffer("unsaved", torch.tensor(2.0), persistent=False)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


def stirred(model, seed=0):
    """In float64, with random weights and statistics, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.5
            value.copy_(drawn.abs() + 0.3 if "var" in name else drawn)
    return model.eval()


def pooled(self, x):
    x = functional.max_pool2d(x, 3, stride=2, padding=1, dilation=2, ceil_mode=True)
    x = functional.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False, ceil_mode=True)
    x = functional.avg_pool2d(x, 2, divisor_override=3)
    return torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)


def shortcuts(self, x):
    first, second = self.layers
    y = first(x)
    y += second(functional.leaky_relu(x, 0.2))
    z = torch.cat([y, x[:, 1:, ::2, ::2].repeat_interleave(1) if False else y - 0.5 * first(x)], dim=1)
    return z.relu_().mean((2, 3))


def arithmetic(self, x):
    x = (x - self.shift) / 0.5 + self.shift * self.unsaved
    x = 1.0 - 2 * x
    x = torch.add(x, -x, alpha=0.25) - torch.ones_like(x)
    return (x * self.shift.exp()).sum(dim=3).flatten(1) @ self.layers[0].weight.T


def shapes(self, x):
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h * w, c).transpose(1, 2)
    a, b = x.chunk(2, dim=2)
    parts = torch.split(a - b, [5, h * w // 2 - 5], dim=2)
    x = functional.pad(parts[0], (1, 2), value=0.7)[:, :, 2].unsqueeze(1).squeeze(1)
    return self.layers[0](x.view(x.size(0), -1))


def spatial(self, x):
    return self.layers[0](x).flatten(1).narrow(1, 0, 6)


def joined(self, x):
    token = self.layers[0].weight[:1].expand(len(x), 3, 1, -1)
    x = torch.cat([token, x, 2 * token, x.flip(2, 3)], dim=2)
    return x.flatten(1)


def clipped(self, x):
    x = functional.relu6(3 * self.layers[0](x)) + functional.hardtanh(x[:, :1, 1:-1, 1:-1], -0.3, 0.4)
    x = x.clamp(min=0.1) - x.clamp(max=2.0)
    return x.amax((1, 3)) + x.max(dim=3).values.sum(1) + x.flip(-1).flatten(1).amax(1, keepdim=True)


def curves(self, x):
    x = self.layers[0](x)
    return (
        x.sigmoid() + x.tanh() + functional.gelu(x) - functional.gelu(x, approximate="tanh") / 2 + functional.silu(x)
    ).flatten(1)


NETWORKS = {
    "pooling": (Written(pooled), (3, 13, 12)),
    "shortcuts": (Written(shortcuts, nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2)), (3, 8, 8)),
    "arithmetic": (Written(arithmetic, nn.Linear(12, 5)), (3, 4, 6)),
    "shapes": (Written(shapes, nn.Linear(3, 4)), (3, 4, 6)),
    "conv1d": (nn.Sequential(nn.Conv1d(4, 6, 4, padding="same", groups=2), nn.PReLU(6), nn.MaxPool1d(2),
                             nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 3)), (4, 8)),
    "conv2d": (Written(spatial, nn.Conv2d(4, 8, 3, (1, 2), (0, 1), (2, 1), groups=4, bias=False)), (4, 9, 8)),
    "conv3d": (nn.Sequential(nn.ZeroPad3d((1, 0, 0, 1, 1, 1)), nn.Conv3d(2, 3, 2, padding="valid"), nn.BatchNorm3d(3),
                             nn.ReLU(inplace=True), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d((2, 1, 1)),
                             nn.Flatten(), nn.Dropout(0.3), nn.Linear(6, 3)), (2, 4, 4, 4)),
    "tokens": (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.Flatten(),
                             nn.BatchNorm1d(12, affine=False), nn.Identity(), nn.Dropout(0.2)), (3, 5)),
    "normalized": (models.Normalized(models.mlp(size=4, channels=3, hidden=(7,)), [0.1, 0.2, 0.3],
                                     [0.5, 0.4, 0.3]), (3, 4, 4)),
    "class tokens": (Written(joined, nn.Linear(4, 4)), (3, 4, 4)),
    "clipped": (Written(clipped, nn.Conv2d(3, 4, 3)), (3, 6, 5)),
    "cast": (Written(lambda self, x: (x - self.shift).double().flatten(1)), (3, 4, 4)),
    "curves": (Written(curves, nn.Linear(4, 4)), (3, 4, 4)),
    "small_cnn": (models.small_cnn(size=8), (1, 8, 8)),
    "resnet20": (models.resnet20(size=8), (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_list_gives_what_the_model_gives(name):
    model, shape = NETWORKS[name]
    model = stirred(model)
    generator = torch.Generator().manual_seed(1)
    graph = trace(model, torch.randn(2, *shape, generator=generator, dtype=torch.float64))
    inputs = 3 * torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(graph(inputs), model(inputs), rtol=1e-10, atol=1e-10)
    values = [inputs]
    for node in graph.nodes:  # every shape it tells is right
        values.append(EVALUATE[type(node.operation)](node.operation, *(values[k] for k in node.arguments)))
        assert values[-1].shape == (7, *node.shape)


def test_what_is_in_the_list():
    graph = trace(stirred(models.lenet(size=8)), torch.rand(1, 1, 8, 8).double())
    kinds = [type(node.operation).__name__ for node in graph.nodes]
    assert kinds == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Reshape", "Linear", "Relu", "Linear"]
    assert graph.nodes[-1].where == "head"
    assert graph.nodes[-1].shape == (10,)
    assert graph.input_shape == (1, 8, 8)
    conv = graph.nodes[0].operation
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (2, 2), (1, 1), 1)


def test_a_snapshot_that_moves_to_another_type():
    model = stirred(models.mlp(size=3, hidden=(5,)))
    inputs = torch.rand(4, 1, 3, 3).double()
    graph, before = trace(model, inputs), model(inputs)
    with torch.no_grad():
        model.head.weight.zero_()
    torch.testing.assert_close(graph(inputs), before)
    single = graph.to(torch.float32)
    assert single(inputs.float()).dtype == torch.float32
    torch.testing.assert_close(single(inputs.float()).double(), before, rtol=1e-5, atol=1e-5)


def test_the_model_is_left_as_it_was():
    model = stirred(models.small_cnn(size=8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs, state = torch.rand(1, 1, 8, 8).double(), torch.random.get_rng_state()
    trace(model, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_any_value_can_walk():
    """Counting the operations that have weights, with a table of our own; one without a rule is named."""
    graph = trace(stirred(models.small_cnn(size=8)), torch.rand(1, 1, 8, 8).double())
    count = dict.fromkeys(EVALUATE, lambda op, *terms: max(terms)) | {
        Conv: lambda op, x: x + 1,
        Linear: lambda op, x: x + 1,
    }
    assert graph.walk(count, 0) == 4
    with pytest.raises(ModelError, match=r"no rule for MaxPool \(in pool1\)"):
        graph.walk({kind: rule for kind, rule in count.items() if kind is not MaxPool}, 0)


def test_residual_sums_and_norms_are_elementary():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.body = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.body(self.norm(x).relu())

    graph = trace(stirred(Block()), torch.rand(3, 4).double())
    assert [type(node.operation) for node in graph.nodes] == [Scale, Relu, Linear, Sum]
    assert graph.nodes[-1].arguments == (0, 3)


EYE = torch.eye(4, dtype=torch.float64)
REFUSED = {
    "softplus": (nn.Sequential(nn.Linear(4, 4), nn.Softplus()), r"aten\.softplus\.default \(in 1\) is none of"),
    "a rounded cast": (Written(lambda self, x: x.to(torch.int64).to(x.dtype)), r"rounds to torch\.int64"),
    "limits that are tensors": (Written(lambda self, x: torch.clamp(x, EYE[0], EYE[0] + 1)), "clamp"),
    "square": (Written(lambda self, x: x * x), r"aten\.mul\.Tensor \(in the model's forward\): the product of two"),
    "reciprocal": (Written(lambda self, x: 1 / x), "none of the operations that bounds and rays know"),
    "batch mean": (Written(lambda self, x: x - x.mean(0)), "ties samples together|over the batch"),
    "batch norm by the batch": (nn.BatchNorm1d(4, track_running_stats=False), r"running stat|ties samples together"),
    "control flow": (Written(lambda self, x: x if x.sum() > 0 else -x), "torch.export cannot follow it"),
    "attention": (Written(lambda self, x: x @ x.transpose(1, 2)), "times a constant matrix"),
    "two outputs": (Written(lambda self, x: (x, -x)), "logits alone"),
    "reflection": (Written(lambda self, x: functional.pad(x, (1, 1), mode="reflect")), "reflect"),
    "windows of several sizes": (nn.AdaptiveAvgPool1d(3), "several sizes"),
    "a weighted bias": (Written(lambda self, x: torch.addmm(EYE[0], x, EYE, beta=2)), "expected beta=1 and alpha=1"),
    "a weighted product": (
        Written(lambda self, x: torch.addmm(EYE[0], x, EYE, alpha=2)),
        "expected beta=1 and alpha=1",
    ),
    "one of the batch": (Written(lambda self, x: x + x.select(0, 0)), "the batch is cut|ties samples together"),
    "sum over the batch, counted from the end": (Written(lambda self, x: x - x.sum(-2)), "over the batch|ties samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_say_is_refused_by_name(name):
    model, message = REFUSED[name]
    shape = (3, 4) if name in {"attention", "reflection", "windows of several sizes"} else (4,)
    with pytest.raises(ModelError, match=message):
        trace(model.double().eval(), torch.rand(2, *shape).double())


def test_numbers_that_are_none_are_named():
    model = nn.Linear(3, 2).eval()
    model.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="its output is NaN or infinite"):
        trace(model, torch.rand(2, 3))


def test_randomness_is_noticed():
    with pytest.raises(ModelError, match=r"none of the operations|own output"):
        trace(Written(lambda self, x: x + torch.rand_like(x)).eval(), torch.rand(2, 4))


def test_errors_teach():
    model = models.mlp(size=3)
    with pytest.raises(ModelError, match=r"evaluation mode, but it is in training mode"):
        trace(model, torch.rand(1, 1, 3, 3))
    with pytest.raises(DataError, match="at least one floating sample"):
        trace(model.eval(), torch.rand(0, 1, 3, 3))


def test_a_network_that_casts_on_its_way_has_a_list_of_one_type():
    model = Written(
        lambda self, x: self.layers[0]((x.double() - self.shift.double()).float().flatten(1)), nn.Linear(48, 3)
    )
    graph = trace(model.eval(), inputs := torch.rand(4, 3, 4, 4))
    assert graph(inputs).dtype == torch.float32
    torch.testing.assert_close(graph(inputs), model(inputs))
