"""The table: kinds of networks as people have them, each with how it is made and what it takes."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations

from tests.reach import layers as made
from tests.reach.layers import Of, Plain, conv, headed, mlp

Generator = torch.Generator
MANY = 64


def rows(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, 12, generator=generator)


def of_shape(*shape: int) -> Callable[[int, Generator], Tensor]:
    return lambda count, generator: torch.rand(count, *shape, generator=generator)


pictures = of_shape(3, 8, 8)


def tokens(count: int, generator: Generator) -> Tensor:
    return torch.randint(30, (count, 9), generator=generator)


def as_bytes(count: int, generator: Generator) -> Tensor:
    return torch.randint(256, (count, 3, 8, 8), generator=generator).to(torch.uint8)


def a_pair(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 5, generator=generator), torch.rand(count, 7, generator=generator)


def named(count: int, generator: Generator) -> dict[str, Tensor]:
    left, right = a_pair(count, generator)
    return {"right": right, "left": left}


def masked(count: int, generator: Generator) -> dict[str, Tensor]:
    mask = (torch.arange(9) < torch.randint(3, 10, (count, 1), generator=generator)).long()
    return {"input_ids": tokens(count, generator) * mask, "attention_mask": mask}


def two_logits(made: Tensor) -> Tensor:
    """One logit z means the logits (0, z)."""
    one = made.reshape(-1, 1)
    return torch.cat([torch.zeros_like(one), one], dim=1)


def itself(made: Any) -> Any:
    return made


@dataclass(frozen=True)
class Kind:
    """One kind of network."""

    build: Callable[[], Any]
    inputs: Callable[[int, Generator], Any] = rows
    logits: Callable[[Any], Tensor] = itself
    """From what the network returns to its logits, by hand."""
    wrap: Callable[[nn.Module, Any], Any] | None = None
    """What is done to the network before it is given away; by hand, it is asked without."""
    slack: float = 1e-5
    """By how much figures may differ: rounding of half precision, and of whole numbers."""
    train: bool = False
    """Whether it is left in training mode."""


class Output(OrderedDict):  # as transformers' ModelOutput: a dictionary whose entries are attributes, too
    """Named outputs."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass
class Answer:
    """Named outputs."""

    logits: Tensor


def _quiet(change: Callable[[nn.Module, Any], Any]) -> Callable[[nn.Module, Any], Any]:
    def changed(model: nn.Module, inputs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch about TorchScript's future
            return change(model, inputs)

    return changed


def _config(model: nn.Module) -> nn.Module:
    model.config = SimpleNamespace(id2label=dict(enumerate(["cat", "dog", "cow", "hen"])))
    return model


def _after(change: Callable[[Tensor], Any], classes: int = 4) -> Callable[[], nn.Module]:
    return lambda: Of(lambda m, x: change(m.body(x)), body=mlp(classes))


TABLES: dict[str, Kind] = {
    "layers with ReLU (MLP)": Kind(mlp),
    "one linear layer": Kind(lambda: nn.Linear(12, 4)),
    "a head without bias": Kind(lambda: mlp(bias=False)),
    "two classes": Kind(lambda: mlp(2)),
    "1,000 classes": Kind(lambda: mlp(1000)),
    "one logit (n, 1)": Kind(lambda: mlp(1), logits=two_logits),
    "one logit (n,)": Kind(lambda: nn.Sequential(mlp(1), nn.Flatten(0)), logits=two_logits),
    "one sigmoid": Kind(lambda: nn.Sequential(mlp(1), nn.Sigmoid()), logits=two_logits),
    "softmax at the end": Kind(lambda: nn.Sequential(mlp(), nn.Softmax(1))),
    "log-softmax at the end": Kind(lambda: nn.Sequential(mlp(), nn.LogSoftmax(1))),
    "weights without layers": Kind(made.Functional),
    "a head called by keyword": Kind(
        lambda: Of(lambda m, x: m.head(input=m.body(x).relu()), body=nn.Linear(12, 16), head=nn.Linear(16, 4))
    ),
    "a head with a strange name": Kind(
        lambda: nn.Sequential(
            OrderedDict([("0 a", nn.Linear(12, 16)), ("né/1", nn.ReLU()), ("weight", nn.Linear(16, 4))])
        )
    ),
    "smooth activations (GELU)": Kind(lambda: mlp(activation=nn.GELU())),
    "activations in place": Kind(lambda: mlp(activation=nn.ReLU(inplace=True))),
    "batch normalisation": Kind(
        lambda: nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    ),
    "dropout": Kind(lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))),
    "a temperature after the head": Kind(_after(lambda z: z / 0.5)),
    "a bias after the head": Kind(_after(lambda z: z + torch.arange(4) / 8)),
    "logits clamped": Kind(_after(lambda z: z.clamp(-0.1, 0.1))),
    "weight normalisation": Kind(lambda: headed(parametrizations.weight_norm(nn.Linear(16, 4)))),
    "weight normalisation (old)": Kind(made.old_weight_norm),
    "spectral normalisation": Kind(lambda: headed(parametrizations.spectral_norm(nn.Linear(16, 4)))),
    "an orthogonal head": Kind(lambda: headed(parametrizations.orthogonal(nn.Linear(16, 4)))),
    "pruned": Kind(made.pruned),
    "LoRA": Kind(lambda: headed(made.Lora(16, 4))),
    "tied weights": Kind(made.Tied),
    "a head tied to an embedding": Kind(made.Embedded),
    "a cosine head": Kind(lambda: headed(made.Cosine(16, 4))),
    "a hook on the head": Kind(made.hooked),
    "frozen weights": Kind(made.frozen),
    "recomputed activations (checkpoint)": Kind(
        lambda: Of(made.checkpointed, body=nn.Linear(12, 16), head=nn.Linear(16, 4))
    ),
    "complex numbers within": Kind(lambda: Of(made.complex_numbers, body=nn.Linear(12, 16), head=nn.Linear(9, 4))),
    "lazy layers that ran": Kind(lambda: made.lazy(True)),
    "lazy layers that never ran": Kind(lambda: made.lazy(True), wrap=lambda *_: made.lazy(False).eval()),
    "networks within networks": Kind(lambda: Of(lambda m, x: m.inner(x), inner=Of(lambda m, x: m.net(x), net=mlp()))),
    "mixture of experts": Kind(made.Experts),
    "early exit, sample by sample": Kind(made.Early),
    "mean probability of three networks": Kind(made.Mean),
    "constant": Kind(_after(lambda z: z * 0 + torch.arange(4.0))),
    "NaN": Kind(_after(lambda z: z.log())),
    "no parameters": Kind(lambda: Of(lambda m, x: x[:, :4])),
    "dropout left on": Kind(_after(lambda z: nn.functional.dropout(z, 0.5, training=True))),
    "noise": Kind(_after(lambda z: z + torch.randn_like(z))),
    "training mode": Kind(lambda: nn.Sequential(nn.Dropout(0.5), mlp()), train=True),
    "a state that grows": Kind(made.Counter),
    "writes into its inputs": Kind(lambda: Of(made.wrote, body=mlp())),
    "normalised by the batch": Kind(_after(lambda z: z - z.mean(0))),
    "batch normalisation without statistics": Kind(
        lambda: nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 4))
    ),
    "no module": Kind(lambda: lambda x: x[:, :4]),
}

PICTURES: dict[str, Kind] = {
    "convolutions": Kind(conv, pictures),
    "convolutions, batch normalisation": Kind(lambda: conv(nn.BatchNorm2d(8)), pictures),
    "convolutions, group normalisation": Kind(lambda: conv(nn.GroupNorm(2, 8)), pictures),
    "convolutions, instance normalisation": Kind(lambda: conv(nn.InstanceNorm2d(8, affine=True)), pictures),
    "convolutions, channels last": Kind(lambda: conv().to(memory_format=torch.channels_last), pictures),
    "strided convolutions, flattened": Kind(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4)), pictures
    ),
    "max pooling": Kind(lambda: conv(nn.MaxPool2d(2)), pictures),
    "depthwise convolutions": Kind(lambda: conv(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)), pictures),
    "dilated convolutions": Kind(lambda: conv(first=nn.Conv2d(3, 8, 3, dilation=2)), pictures),
    "transposed convolutions": Kind(lambda: conv(nn.ConvTranspose2d(8, 8, 2, stride=2)), pictures),
    "1x1 convolution as head, pooled after": Kind(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        pictures,
    ),
    "1x1 convolution as head, pooled before": Kind(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten()
        ),
        pictures,
    ),
    "residual": Kind(
        lambda: Of(made.residual, first=nn.Conv2d(3, 8, 3), second=nn.Conv2d(8, 8, 3, padding=1), head=nn.Linear(8, 4)),
        pictures,
    ),
    "dense connections": Kind(
        lambda: Of(made.dense, first=nn.Conv2d(3, 8, 3), second=nn.Conv2d(8, 8, 3, padding=1), head=nn.Linear(16, 4)),
        pictures,
    ),
    "squeeze and excitation": Kind(
        lambda: Of(
            made.squeeze_excite, body=nn.Conv2d(3, 8, 3), down=nn.Linear(8, 2), up=nn.Linear(2, 8), head=nn.Linear(8, 4)
        ),
        pictures,
    ),
    "vision transformer, class token": Kind(made.Patches, pictures),
    "vision transformer, mean of tokens": Kind(lambda: made.Patches("mean"), pictures),
    "MLP-Mixer": Kind(made.Mixer, pictures),
    "pictures in bytes": Kind(lambda: Of(lambda m, x: m.body(x.float() / 255), body=conv()), as_bytes),
    "segmentation": Kind(lambda: nn.Conv2d(3, 4, 3, padding=1), pictures),
    "volumes (3-d convolutions)": Kind(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 4)),
        of_shape(1, 4, 4, 4),
    ),
}

SEQUENCES: dict[str, Kind] = {
    "signals (1-d convolutions)": Kind(
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4)),
        of_shape(3, 16),
    ),
    "RNN": Kind(lambda: made.Recurrent(nn.RNN), of_shape(9, 3)),
    "GRU, both directions": Kind(lambda: made.Recurrent(nn.GRU, bidirectional=True), of_shape(9, 3)),
    "LSTM": Kind(lambda: made.Recurrent(nn.LSTM), of_shape(9, 3)),
    "points (maximum over a set)": Kind(
        lambda: Of(made.points, body=nn.Linear(3, 16), head=nn.Linear(16, 4)), of_shape(9, 3)
    ),
    "attention pooling": Kind(
        lambda: Of(made.attended, body=nn.Linear(3, 16), weight=nn.Linear(16, 1), head=nn.Linear(16, 4)), of_shape(9, 3)
    ),
    "bag of embeddings": Kind(lambda: nn.Sequential(nn.EmbeddingBag(30, 16), nn.Linear(16, 4)), tokens),
    "embeddings, mean": Kind(
        lambda: Of(lambda m, x: m.head(m.embed(x).mean(1)), embed=nn.Embedding(30, 16), head=nn.Linear(16, 4)), tokens
    ),
    "transformer with a mask": Kind(made.Masked, masked, logits=lambda made: made["logits"]),
}


class Joined(nn.Module):
    """Takes two inputs, by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.body(torch.cat([left, right], dim=1))


FORMS: dict[str, Kind] = {
    "two inputs": Kind(Joined, a_pair),
    "inputs by name": Kind(Joined, named),
    "logits in a dictionary": Kind(_after(lambda z: {"loss": None, "logits": z}), logits=lambda made: made["logits"]),
    "logits in a tuple": Kind(_after(lambda z: (z, z.new_zeros(len(z), 2, 3))), logits=lambda made: made[0]),
    "logits in a ModelOutput": Kind(_after(lambda z: Output(logits=z)), logits=lambda made: made.logits),
    "logits in a dataclass": Kind(_after(Answer), logits=lambda made: made.logits),
    "an auxiliary output of the same shape": Kind(_after(lambda z: (z, z / 2)), logits=lambda made: made[0]),
    "a list of class names (id2label)": Kind(lambda: _config(mlp())),
}

WRAPPED: dict[str, Kind] = {
    "float64": Kind(lambda: mlp().double()),
    "float16": Kind(lambda: mlp().half(), slack=5e-3),
    "bfloat16": Kind(lambda: mlp().bfloat16(), slack=3e-2),
    "autocast within": Kind(lambda: Of(made.by_autocast, body=mlp()), slack=3e-2),
    "int8, static": Kind(lambda: made.quantised(True)),
    "int8, dynamic": Kind(lambda: made.quantised(False)),
    "torch.compile": Kind(Plain, wrap=lambda model, _: torch.compile(model, backend="eager")),
    "torch.fx": Kind(Plain, wrap=lambda model, _: fx.symbolic_trace(model)),
    "torch.jit.script": Kind(Plain, wrap=_quiet(lambda model, _: torch.jit.script(model))),
    "torch.jit.trace": Kind(Plain, wrap=_quiet(lambda model, inputs: torch.jit.trace(model, inputs[:3]))),
    "torch.jit.freeze": Kind(Plain, wrap=_quiet(lambda model, _: torch.jit.freeze(torch.jit.script(model)))),
    "torch.export": Kind(Plain, wrap=_quiet(lambda model, inputs: _exported(model, inputs))),
    "DataParallel": Kind(Plain, wrap=lambda model, _: nn.DataParallel(model).eval()),
}


def _exported(model: nn.Module, inputs: Tensor) -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=10_000)
    return torch.export.export(model, (inputs[:3],), dynamic_shapes=({0: batch},)).module()


GROUPS: dict[str, dict[str, Kind]] = {
    "tables (n, d)": TABLES,
    "pictures": PICTURES,
    "sequences and sets": SEQUENCES,
    "other inputs and outputs": FORMS,
    "precision, compilers and wrappers": WRAPPED,
}
KINDS: dict[str, Kind] = {name: kind for group in GROUPS.values() for name, kind in group.items()}


def built(kind: Kind, seed: int) -> tuple[Any, Any]:
    """The network as it is given away, and as it is asked by hand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain = kind.build()
        if isinstance(plain, nn.Module):
            plain.train(kind.train)
        if kind.wrap is None:
            return plain, plain
        given = kind.wrap(plain, kind.inputs(MANY, torch.Generator().manual_seed(0)))
        return given, plain


__all__ = ["GROUPS", "KINDS", "MANY", "Kind", "built"]
