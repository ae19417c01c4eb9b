"""Networks that differ in their layers, and in what they do between them; all small, of random weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint


class Of(nn.Module):
    """A network written as a function of its layers."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def mlp(classes: int = 4, *, bias: bool = True, activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 16), activation or nn.ReLU(), nn.Linear(16, classes, bias=bias))


def headed(head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), head)


def conv(*between: nn.Module, first: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        first or nn.Conv2d(3, 8, 3), *between, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


class Plain(nn.Module):
    """Two layers that a function joins; scripts and compilers take it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(inputs)))


class Functional(nn.Module):
    """Weights without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(16, 12) / 3), nn.Parameter(torch.zeros(16))
        self.w2, self.b2 = nn.Parameter(torch.randn(4, 16) / 4), nn.Parameter(torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(functional.linear(inputs, self.w1, self.b1).relu(), self.w2, self.b2)


class Lora(nn.Linear):
    """A linear layer with a product of low rank beside its weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs) / 4), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.down.T @ self.up.T


class Cosine(nn.Linear):
    """Angles to the rows of its weight."""

    def forward(self, input: Tensor) -> Tensor:
        return 8 * functional.linear(functional.normalize(input), functional.normalize(self.weight))


class Patches(nn.Module):
    """Pictures in patches, a class token, attention."""

    def __init__(self, pool: str = "token") -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 4, stride=4), nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 5, 16) / 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.norm, self.head, self.pool = nn.LayerNorm(16), nn.Linear(16, 4), pool

    def forward(self, inputs: Tensor) -> Tensor:
        parts = self.patch(inputs).flatten(2).transpose(1, 2)
        found = self.block(torch.cat([self.token.expand(len(parts), -1, -1), parts], dim=1) + self.place)
        return self.head(self.norm(found[:, 0] if self.pool == "token" else found.mean(dim=1)))


class Mixer(nn.Module):
    """Linear maps over tokens and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.tokens, self.channels = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(4, 4), nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        parts = self.patch(inputs).flatten(2)
        parts = (parts + self.tokens(parts).relu()).transpose(1, 2)
        return self.head((parts + self.channels(parts).relu()).mean(dim=1))


class Recurrent(nn.Module):
    """The last step of a recurrent layer."""

    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.layer, self.head = kind(3, 8, batch_first=True, **options), nn.LazyLinear(4)
        self.head(self.layer(torch.zeros(1, 2, 3))[0][:, -1])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layer(inputs)[0][:, -1])


class Masked(nn.Module):
    """A transformer of tokens under a mask, as a tokenizer's dictionary names them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        found = self.encoder(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
        weight = attention_mask.float()[..., None]
        return {"logits": self.head((found * weight).sum(1) / weight.sum(1))}


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.again.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.again(self.first(inputs).relu()).relu())


class Experts(nn.Module):
    """Each sample goes to one of two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts, self.head = nn.Linear(12, 2), nn.ModuleList([nn.Linear(12, 16)] * 1), nn.Linear(16, 4)
        self.experts.append(nn.Linear(12, 16))

    def forward(self, inputs: Tensor) -> Tensor:
        which = self.gate(inputs).argmax(1)
        return self.head(torch.stack([one(inputs) for one in self.experts], 1)[torch.arange(len(inputs)), which].relu())


class Early(nn.Module):
    """Samples that the first exit is sure of leave there; the others go on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.exit = nn.Linear(12, 16), nn.Linear(16, 4)
        self.more, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.body(inputs).relu()
        logits = self.exit(found).clone()
        going = logits.softmax(1).amax(1) < 0.3
        if bool(going.any()):
            logits[going] = self.head(self.more(found[going]).relu())
        return logits


class Mean(nn.Module):
    """The logarithm of the mean probability of several networks."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList([mlp() for _ in range(3)])

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([one(inputs).softmax(1) for one in self.networks]).mean(0).log()


class Counter(nn.Module):
    """Its answers change from call to call."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.body(inputs) * self.calls


class Embedded(nn.Module):
    """The head's weight is that of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.names = nn.Linear(12, 16), nn.Embedding(4, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs).relu() @ self.names.weight.T


def pruned() -> nn.Module:
    model = mlp()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    prune.l1_unstructured(model[2], "weight", amount=0.5)
    return model


def frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def hooked() -> nn.Module:
    model = mlp()
    model[2].register_forward_hook(lambda layer, inputs, output: output * 2)
    return model


def checkpointed(model: nn.Module, inputs: Tensor) -> Tensor:
    found: Any = checkpoint(lambda x: model.body(x).relu(), inputs, use_reentrant=False)
    return model.head(found)


def complex_numbers(model: nn.Module, inputs: Tensor) -> Tensor:
    return model.head(torch.fft.rfft(model.body(inputs)).abs())


def wrote(model: nn.Module, inputs: Tensor) -> Tensor:
    inputs.sub_(0.5)
    return model.body(inputs)


def by_autocast(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model.body(inputs)


def lazy(run: bool) -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(4))
    if run:
        model(torch.zeros(2, 12))
    return model


def squeeze_excite(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model.body(inputs).relu()
    gate = model.up(model.down(found.mean((2, 3))).relu()).sigmoid()
    return model.head((found * gate[:, :, None, None]).mean((2, 3)))


def residual(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model.first(inputs).relu()
    return model.head((found + model.second(found)).relu().mean((2, 3)))


def dense(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model.first(inputs).relu()
    return model.head(torch.cat([found, model.second(found).relu()], dim=1).mean((2, 3)))


def points(model: nn.Module, inputs: Tensor) -> Tensor:
    return model.head(model.body(inputs).relu().amax(dim=1))


def attended(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model.body(inputs)
    return model.head((found * model.weight(found).softmax(dim=1)).sum(dim=1))


def quantised(static: bool) -> nn.Module:
    """As `torch.ao.quantization` makes whole numbers of weights (and of activations, if static)."""
    import warnings

    from torch.ao import quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another way to quantise
        if not static:
            return quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, dtype=torch.qint8)
        model = nn.Sequential(quantization.QuantStub(), mlp(), quantization.DeQuantStub()).eval()
        model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        ready = quantization.prepare(model)
        ready(torch.rand(64, 12, generator=torch.Generator().manual_seed(0)))
        return quantization.convert(ready)


def old_weight_norm() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another way to write it
        return headed(nn.utils.weight_norm(nn.Linear(16, 4)))


NORMS = {"weight": parametrizations.weight_norm, "spectral": parametrizations.spectral_norm}
