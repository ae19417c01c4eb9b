"""Two moons: the confidence of a plain network and of one trained with ACET, over the plane."""

import torch
from PIL import Image
from torch import Tensor, nn

from caveat.attacks import Ball, ascend, losses
from caveat.evaluation import in_eval_mode
from caveat.objectives import Objective, cross_entropy
from caveat.objectives.confidence import together
from caveat.records.findings import Shot
from caveat.records.pictures import encoded
from caveat.training import fit

__all__ = ["moons"]

SIDE = 180
REACH = 3.0
"""The picture shows [0.5 - reach, 0.5 + reach] in both directions; data and noise of training are in [0, 1]."""


def moons(*, steps: int, seed: int) -> list[Shot]:
    """Train both networks and paint their confidence: white is 50 %, dark is confident; the two classes as dots."""
    points, labels = _points(seed)
    shots: list[Shot] = []
    for name, objective in (("Plain", cross_entropy), ("ACET", _acet)):
        model = _trained(points, labels, objective, steps, seed)
        shots.append(
            Shot(
                title=f"Two moons, {name}", png=_painted(model, points, labels),
                caption="Confidence over the plane: white 50 %, dark blue 100 %. The square is [0, 1] x [0, 1], where "
                "ACET's training noise lies; the plain network is confident almost everywhere.",
            )
        )  # fmt: skip
    return shots


def _points(seed: int) -> tuple[Tensor, Tensor]:
    """2,000 points on two moons with noise 0.02, brought into the unit square as in the authors' notebook."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2000) % 2
    angle = torch.pi * torch.rand(2000, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    points = torch.where(labels[:, None] == 0, upper, lower) + 0.02 * torch.randn(2000, 2, generator=generator)
    points = (points + 1.6) / 4
    return torch.stack([points[:, 0] - 0.035, (points[:, 1] - 0.17) * 1.75], dim=1), labels


def _acet(model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """ACET in the plane: twice as much noise as data, moved by at most 0.025 where the network is most confident."""
    noise = torch.rand(2 * len(inputs), 2, generator=generator).reshape(-1, 1, 1, 2)

    def confidence(points: Tensor) -> Tensor:
        logits = model(points)
        return losses.confidence(logits, logits.argmax(dim=1))

    with in_eval_mode(model):
        worst = ascend(confidence, noise, Ball(float("inf"), 0.025), generator=generator, steps=4).inputs
    return together(model, inputs, labels, worst, 1.0)


def _trained(points: Tensor, labels: Tensor, objective: Objective, steps: int, seed: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 2))
    generator = torch.Generator().manual_seed(seed)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    batches = [(points.reshape(-1, 1, 1, 2), labels)]
    fit(
        model, batches, objective, optimizer=optimizer, schedule=schedule, epochs=steps, generator=generator,
        progress=False,
    )  # fmt: skip
    return model.eval()


def _painted(model: nn.Module, points: Tensor, labels: Tensor) -> str:
    across = torch.linspace(0.5 - REACH, 0.5 + REACH, SIDE)
    grid = torch.stack(torch.meshgrid(across, across.flip(0), indexing="xy"), dim=2).reshape(-1, 1, 1, 2)
    with torch.no_grad():
        confident = model(grid).softmax(dim=1).amax(dim=1).reshape(SIDE, SIDE)
    depth = ((confident - 0.5) * 2).clamp(0, 1).unsqueeze(2)
    picture = (1 - depth) * torch.tensor([255.0, 255.0, 255.0]) + depth * torch.tensor([27.0, 73.0, 138.0])
    edges = [int((edge - 0.5 + REACH) / (2 * REACH) * (SIDE - 1)) for edge in (0.0, 1.0)]
    for edge in edges:
        for line in (picture[edges[0] : edges[1] + 1, edge], picture[edge, edges[0] : edges[1] + 1]):
            line[:] = torch.tensor([120.0, 120.0, 120.0])
    columns = ((points[:, 0] - 0.5 + REACH) / (2 * REACH) * (SIDE - 1)).round().long()
    rows = SIDE - 1 - ((points[:, 1] - 0.5 + REACH) / (2 * REACH) * (SIDE - 1)).round().long()
    colours = torch.tensor([[230.0, 97.0, 1.0], [94.0, 190.0, 90.0]])[labels]
    picture[rows.clamp(0, SIDE - 1), columns.clamp(0, SIDE - 1)] = colours
    image = Image.fromarray(picture.round().to(torch.uint8).numpy()).resize(
        (2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST
    )
    return encoded(image)
