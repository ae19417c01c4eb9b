"""ENet: segmentation for small machines."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from caveat.models.initialise import built, check_sizes

__all__ = ["ENet", "enet"]

Maps = Float[Tensor, "n _ _ _"]
DILATIONS = (2, 4, 8, 16)


def enet(*, classes: int = 11, channels: int = 3, generator: torch.Generator | None = None) -> "ENet":
    """ENet: an early, strong reduction of the picture, thin bottlenecks, a small decoder that unpools.

    0.36 million parameters; about 1.4 thousand million multiplications at 360x480. Pictures `(n, channels, h, w)` of
    any size; they are padded to multiples of 8 and the logits `(n, classes, h, w)` cut back. Dropout of whole maps with
    0.01 in the first stage and 0.1 in the second and third, so it can be asked again and again (MC dropout).

    Source: Paszke, Chaurasia, Kim and Culurciello, ENet, arXiv:1606.02147, table 1 and section 4.

    Raises
    ------
    OptionError
        If there are fewer than two classes or no channels.
    """
    check_sizes(classes=classes, channels=channels, size=8, smallest=8)
    generator = generator or torch.Generator().manual_seed(0)
    model = built(lambda: ENet(classes, channels), generator)
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):  # each output sees a (kernel / stride)^2 part of the kernel
            seen = module.in_channels * module.kernel_size[0] ** 2 / module.stride[0] ** 2
            nn.init.normal_(module.weight, std=(2 / seen) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Initial(nn.Module):
    """A strided convolution and a pooling side by side: 16 maps of half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16 - channels, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm = _norm(16)
        self.active = nn.PReLU(16)

    def forward(self, inputs: Maps) -> Maps:
        return self.active(self.norm(torch.cat([self.conv(inputs), self.pool(inputs)], dim=1)))


def _reduced(inward: int, inner: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, inner, kernel, stride=kernel, bias=False), _norm(inner), nn.PReLU(inner))


def _middle(inner: int, *, dilation: int = 1, asymmetric: bool = False) -> nn.Sequential:
    if asymmetric:
        convs: list[nn.Module] = [
            nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
            nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False),
        ]
    else:
        convs = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)]
    return nn.Sequential(*convs, _norm(inner), nn.PReLU(inner))


def _expanded(inner: int, outward: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outward, 1, bias=False), _norm(outward), nn.Dropout2d(dropout))


class _Bottleneck(nn.Module):
    """The input plus a thin branch: 1x1 down to a quarter, a 3x3, dilated or 5x1-1x5 convolution, 1x1 up."""

    def __init__(self, channels: int, dropout: float, *, dilation: int = 1, asymmetric: bool = False) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            _reduced(channels, inner, 1),
            _middle(inner, dilation=dilation, asymmetric=asymmetric),
            _expanded(inner, channels, dropout),
        )
        self.active = nn.PReLU(channels)

    def forward(self, inputs: Maps) -> Maps:
        return self.active(inputs + self.branch(inputs))


class _Down(nn.Module):
    """Halves the maps by pooling, whose places are kept, and adds channels: zeros in the main branch."""

    def __init__(self, inward: int, outward: int, dropout: float) -> None:
        super().__init__()
        inner = inward // 4
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.branch = nn.Sequential(_reduced(inward, inner, 2), _middle(inner), _expanded(inner, outward, dropout))
        self.more = outward - inward
        self.active = nn.PReLU(outward)

    def forward(self, inputs: Maps) -> tuple[Maps, Tensor]:
        main, places = self.pool(inputs)
        main = functional.pad(main, (0, 0, 0, 0, 0, self.more))
        return self.active(main + self.branch(inputs)), places


class _Up(nn.Module):
    """Doubles the maps: the main branch puts values back to where pooling took them from."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        inner = inward // 4
        self.main = nn.Sequential(nn.Conv2d(inward, outward, 1, bias=False), _norm(outward))
        self.unpool = nn.MaxUnpool2d(2)
        self.branch = nn.Sequential(
            nn.Conv2d(inward, inner, 1, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outward, 1, bias=False),
            _norm(outward),
        )
        self.active = nn.ReLU()

    def forward(self, inputs: Maps, places: Tensor) -> Maps:
        return self.active(self.unpool(self.main(inputs), places) + self.branch(inputs))


class _Plain(nn.Module):
    """A decoder's bottleneck: with ReLU, without dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            _norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            _norm(channels),
        )
        self.active = nn.ReLU()

    def forward(self, inputs: Maps) -> Maps:
        return self.active(inputs + self.branch(inputs))


def _stage(channels: int) -> nn.Sequential:
    """Plain, dilated, asymmetric and dilated again, twice, with growing dilation."""
    first, second, third, fourth = DILATIONS
    kinds = [
        {}, {"dilation": first}, {"asymmetric": True}, {"dilation": second},
        {}, {"dilation": third}, {"asymmetric": True}, {"dilation": fourth},
    ]  # fmt: skip
    return nn.Sequential(
        *(
            _Bottleneck(channels, 0.1, dilation=kind.get("dilation", 1), asymmetric="asymmetric" in kind)
            for kind in kinds
        )
    )


class ENet(nn.Module):
    """See `enet`."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.initial = _Initial(channels)
        self.down1 = _Down(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(_Bottleneck(64, 0.01) for _ in range(4)))
        self.down2 = _Down(64, 128, 0.1)
        self.stage2 = _stage(128)
        self.stage3 = _stage(128)
        self.up4 = _Up(128, 64)
        self.stage4 = nn.Sequential(_Plain(64), _Plain(64))
        self.up5 = _Up(64, 16)
        self.stage5 = _Plain(16)
        self.head = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n c h w"]:
        """Logits of every pixel."""
        height, width = inputs.shape[-2:]
        maps = self.initial(functional.pad(inputs, (0, -width % 8, 0, -height % 8)))
        maps, first = self.down1(maps)
        maps, second = self.down2(self.stage1(maps))
        maps = self.stage4(self.up4(self.stage3(self.stage2(maps)), second))
        return self.head(self.stage5(self.up5(maps, first)))[..., :height, :width]
