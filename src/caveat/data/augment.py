"""Random changes to training pictures that leave the label true; the whole batch at once."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from caveat.data.source import Images

__all__ = ["AUGMENTATIONS", "crop", "crop_and_flip", "flip", "joined"]


def crop(images: Images, generator: torch.Generator, *, pad: int = 4) -> Images:
    """Each picture moved by up to `pad` pixels either way, both ways; what comes in from outside is black."""
    n, _, height, width = images.shape
    device = images.device
    down, right = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=generator.device).to(device)
    rows = down[:, None] + torch.arange(height, device=device)
    columns = right[:, None] + torch.arange(width, device=device)
    padded = functional.pad(images, (pad,) * 4)
    # Advanced indices on both sides of a slice: the channels come out last.
    moved = padded[torch.arange(n, device=device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def flip(images: Images, generator: torch.Generator) -> Images:
    """Each picture mirrored, left for right, with probability one half."""
    mirrored = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def crop_and_flip(images: Images, generator: torch.Generator) -> Images:
    """`crop` by up to 4 pixels, then `flip`: what CIFAR networks are trained with."""
    return flip(crop(images, generator), generator)


AUGMENTATIONS: dict[str, Callable[[Images, torch.Generator], Images]] = {"crop": crop, "flip": flip}


def joined(names: Sequence[str]) -> Callable[[Images, torch.Generator], Images] | None:
    """The augmentations of these names, one after the other; None for no names."""

    def augment(images: Images, generator: torch.Generator) -> Images:
        for name in names:
            images = AUGMENTATIONS[name](images, generator)
        return images

    return augment if names else None
