"""Random numbers that belong to a sample: whatever stands beside it in the batch, it gets the same ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Noise", "drawn"]

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number: the stride of SplitMix64
MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its shifts and multipliers
LAST = 31


@dataclass(frozen=True)
class Noise:
    """One seed a sample, and as many streams of uniform numbers as wanted (one a restart, say).

    Number j of a stream is a hash (SplitMix64) of seed, stream and j, for all samples at once: no loop over samples, no
    generator a sample, and the same numbers on every device.
    """

    seeds: Int[Tensor, " n"]

    def uniform(self, numbers: int, *, stream: int) -> Float[Tensor, "n numbers"]:
        """Uniform in (0, 1), neither end included, in float64."""
        state = _mixed(self.seeds + GOLDEN * (stream + 1) % 2**63)
        counter = torch.arange(1, numbers + 1, device=self.seeds.device)
        bits = _mixed(state[:, None] + counter * GOLDEN)
        return (_shifted(bits, 12).double() + 0.5) * 2.0**-52

    def of(self, rows: Tensor) -> "Noise":
        """That of some of the samples."""
        return Noise(self.seeds[rows])


def drawn(samples: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Noise:
    """One seed for each sample, in order: a batch of n draws what n batches of 1 draw one after the other.

    That holds for a generator on the CPU, which may serve a model on any device.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (SplitMix64).
    """
    high = torch.iinfo(torch.int64).max
    return Noise(torch.randint(high, (samples,), generator=generator, device=generator.device).to(device))


def _mixed(state: Tensor) -> Tensor:
    """SplitMix64's finaliser; multiplication is modulo 2^64."""
    for shift, factor in MIX:
        state = (state ^ _shifted(state, shift)) * factor
    return state ^ _shifted(state, LAST)


def _shifted(state: Tensor, by: int) -> Tensor:
    """Shift to the right, zeros coming in."""
    return (state >> by) & ((1 << (64 - by)) - 1)
