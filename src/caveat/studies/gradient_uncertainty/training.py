"""The CNNs of the study of gradient uncertainty, trained as in the paper."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caveat import data
from caveat.data import Source
from caveat.errors import CaveatError
from caveat.models.gradient_cnn import gradient_cnn
from caveat.models.initialise import glorot
from caveat.objectives import cross_entropy
from caveat.observations import observe
from caveat.records.findings import Scale
from caveat.tensors import read_tensors, write_tensors
from caveat.training import fit

__all__ = ["FEW", "SIZES", "WHOLE", "Size", "trained"]


FEW = 200
"""OOD inputs of each kind that meta classifiers are fitted on, as in the paper."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    nets: int
    train: int
    held_out: int
    test: int
    ood: int
    """Pictures of each OOD set that are judged."""
    epochs: int
    batch: int = 256
    rate: float = 0.1


SIZES: dict[Scale, Size] = {
    "smoke": Size(nets=1, train=700, held_out=500, test=500, ood=150, epochs=6, batch=64, rate=0.03),
    "small": Size(nets=4, train=10_000, held_out=5_000, test=10_000, ood=2_000, epochs=10),
    "full": Size(nets=10, train=30_000, held_out=10_000, test=30_000, ood=4_000, epochs=30),
}
WHOLE = Size(nets=10, train=60_000, held_out=20_000, test=200_000, ood=10_000, epochs=30)
"""The paper's, for those who have EMNIST's 280,000 digits."""


def trained(train: Source, held_out: Source, size: Size, seed: int, path: Path) -> tuple[nn.Module, int]:
    """A CNN, from `path` if it is there, and how often its training had to start again.

    At the paper's rate of 0.1 some diverge; such a one starts again at half the rate, from other weights.
    """
    generator = torch.Generator().manual_seed(seed)
    if path.exists():
        net, state = gradient_cnn(), read_tensors(path, name="study")
        restarts = int(state.pop("restarts"))
        net.load_state_dict(state)
        return net.eval(), restarts
    for restarts in range(5):
        net = glorot(gradient_cnn(generator=generator), generator)
        try:
            _train(net, train, held_out, size, size.rate / 2**restarts, generator)
        except CaveatError:
            continue
        write_tensors(path, net.state_dict() | {"restarts": torch.tensor(restarts)})
        return net.eval(), restarts
    raise CaveatError(f"training: the CNN of seed {seed} diverged five times, the last at a rate of {size.rate / 16}")


def _train(
    net: nn.Module, train: Source, held_out: Source, size: Size, rate: float, generator: torch.Generator
) -> None:
    """The rate falls by ten where the validation accuracy has not risen for two epochs."""
    batches = data.shuffled(train, batch=size.batch, generator=generator)
    kernels = [value for name, value in net.named_parameters() if name.endswith("weight")]
    biases = [value for name, value in net.named_parameters() if name.endswith("bias")]
    # Keras adds 1e-3 |w|^2 to the loss, torch's decay is half its gradient
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": 2e-3}, {"params": biases}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    reached: list[float] = []

    def after(_: int, model: nn.Module) -> None:
        model.eval()
        seen = observe(model, held_out, features=False)
        reached.append(float((seen.logits.argmax(dim=1) == seen.labels).double().mean()))
        if len(reached) > 2 and max(reached[-2:]) < max(reached[:-2]) + 1e-3:
            for group in optimizer.param_groups:
                group["lr"] = max(1e-3, group["lr"] / 10)
            reached[:] = [max(reached)]

    fit(net, batches, cross_entropy, optimizer=optimizer, epochs=size.epochs, generator=generator, after_epoch=after)
