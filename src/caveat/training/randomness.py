"""Training draws from its generator only, and what draws from torch's global state (dropout) is seeded by it."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["private_randomness", "restore", "seeded", "snapshot"]


@contextmanager
def private_randomness(model: nn.Module, generator: torch.Generator) -> Generator[None]:
    """Inside, the global state of the CPU and of the model's CUDA devices starts from one draw of `generator`.

    Outside, it is as it was before.
    """
    with seeded(int(torch.randint(2**62, (), generator=generator, device=generator.device)), _cuda_devices(model)):
        yield


@contextmanager
def seeded(seed: int, devices: Sequence[int] = ()) -> Generator[None]:
    """Inside, the global state of the CPU and of these CUDA devices starts from `seed`.

    Outside, it is as it was before.
    """
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for device in devices:
            torch.cuda.set_rng_state(torch.Generator(f"cuda:{device}").manual_seed(seed).get_state(), device)
        yield


def snapshot(model: nn.Module, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """All random states that a training run depends on."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _cuda_devices(model)],
        "generators": [generator.get_state() for generator in generators],
    }


def restore(state: dict[str, Any], model: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Put back what `snapshot` gave."""
    torch.set_rng_state(state["cpu"])
    for device, saved in zip(_cuda_devices(model), state["cuda"], strict=True):
        torch.cuda.set_rng_state(saved, device)
    for generator, saved in zip(generators, state["generators"], strict=True):
        generator.set_state(saved)


def _cuda_devices(model: nn.Module) -> list[int]:
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    return sorted(device.index or 0 for device in devices)
