"""Problems with a hidden counterexample: no method may verify one; last line JSON.

A small network is verified in a whole ball; then a narrow peak is planted at a secret point of it, where another class
wins, and elsewhere next to nothing changes. Attacks hardly find it; a bound that is not sound misses it too, and says
verified. The idea of SoundnessBench (Zhou et al. 2024), which trains such networks; here the peak is built by hand, in
the same layers as the rest. 250 problems take minutes.
"""

import argparse
import json
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.bounds import METHODS, Certificate, bounds, certify
from caveat.graph import Graph, trace

SIZE, WIDTH, CLASSES = 6, 5, 4
NORMS = (torch.inf, 2, 1)
KINDS = ("relu", "pooled", "convolution", "sigmoid")
RADII = {torch.inf: 0.2, 2: 0.3, 1: 0.5}
SECONDS = 0.2
"""Of branch and bound, for each problem."""


@dataclass(frozen=True)
class Problem:
    """A network whose answer at `inputs` is `labels`, and at `hidden`, which is in the ball, another one."""

    model: nn.Sequential
    plain: nn.Sequential
    """The same without the peak."""
    inputs: Tensor
    labels: Tensor
    ball: Ball
    hidden: Tensor

    def margin(self) -> float:
        """What the network itself gives the label over the largest other class, at the hidden point; below 0."""
        with torch.no_grad():
            logits = self.model(self.hidden)[0].double()
        label = int(self.labels)
        return float(logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max())


def network(kind: str, secret: Tensor, generator: torch.Generator) -> nn.Sequential:
    """Random units beside those of the peak, in the same layers; it has no weight yet.

    Formula: of ReLUs h - a |x - s|_1, cut at 0, is the peak at s: |x - s| is the sum of two ReLUs or their maximum. Of
    sigmoids, every value has a window around s of two, and the peak is where all windows overlap.
    """
    beside = torch.randn(WIDTH, SIZE, generator=generator) * 0.5
    identity, half = torch.eye(SIZE), 0.02
    if kind == "sigmoid":  # windows of 2 half around s
        sharp = 400.0
        first = torch.cat([beside, sharp * identity, sharp * identity])
        shift = torch.cat([torch.zeros(WIDTH), sharp * (half - secret), sharp * (-half - secret)])
        into = torch.cat([torch.full((SIZE,), 20.0), torch.full((SIZE,), -20.0)])
        height, activation = 10.0 - 20.0 * SIZE, nn.Sigmoid()
    else:
        first = torch.cat([beside, identity, -identity])
        shift = torch.cat([torch.zeros(WIDTH), -secret, secret])
        into, height, activation = torch.full((2 * SIZE,), -1 / half), 1.0, nn.ReLU()
    layers: list[nn.Module] = [nn.Linear(SIZE, len(first)), activation]
    if kind == "pooled":  # |x - s| as the maximum of two, the other units as that of themselves and 0
        first = torch.stack([first, torch.cat([torch.zeros(WIDTH, SIZE), -first[WIDTH:]])], 1).flatten(0, 1)
        shift = torch.stack([shift, torch.cat([torch.zeros(WIDTH), -shift[WIDTH:]])], 1).flatten()
        into = into / 2
        layers = [nn.Linear(SIZE, len(first)), nn.Unflatten(1, (1, -1)), nn.MaxPool1d(2), nn.Flatten()]
    if kind == "convolution":  # over the whole of the picture
        layers = [
            nn.Unflatten(1, (1, 2, SIZE // 2)),
            nn.Conv2d(1, len(first), (2, SIZE // 2)),
            nn.Flatten(),
            activation,
        ]
        first = first.reshape(-1, 1, 2, SIZE // 2)
    second = nn.Linear(WIDTH + 2 * SIZE, WIDTH + 1)
    weight = torch.zeros(WIDTH + 1, WIDTH + 2 * SIZE)
    weight[:WIDTH, :WIDTH] = torch.randn(WIDTH, WIDTH, generator=generator) * 0.5
    weight[WIDTH, WIDTH:] = into
    last = nn.Linear(WIDTH + 1, CLASSES)
    spread = torch.randn(CLASSES, WIDTH + 1, generator=generator)
    spread[:, WIDTH] = 0
    head = next(layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))
    with torch.no_grad():
        for layer, values, offset in (
            (head, first, shift), (second, weight, torch.cat([torch.zeros(WIDTH), torch.tensor([height])])),
            (last, spread, torch.zeros(CLASSES)),
        ):  # fmt: skip
            layer.weight.copy_(values), layer.bias.copy_(offset)
    return nn.Sequential(*layers, second, activation, last).eval()


def problem(seed: int) -> Problem:
    """Made of a seed alone: the kind of network and the norm go round, everything else is drawn."""
    generator = torch.Generator().manual_seed(seed)
    kind, norm = KINDS[seed % 4], NORMS[seed // 4 % 3]
    ball = Ball(norm, RADII[norm])
    inputs = 0.3 + 0.4 * torch.rand(1, SIZE, generator=generator)
    hidden = inputs + (0.3 + 0.6 * torch.rand(1, generator=generator)) * (ball.sample(inputs, generator) - inputs)
    plain = network(kind, hidden[0], generator)
    model = network(kind, hidden[0], torch.Generator())  # its weights are replaced
    labels = plain(inputs).argmax(1)
    last = plain[-1]
    with torch.no_grad():
        margins, _ = bounds(plain, inputs, ball, outputs="margins", labels=labels)
        last.bias[labels] += (0.3 - margins.min()).clamp_min(0).float()  # so that the plain network is verified
        model.load_state_dict(plain.state_dict())
        logits = plain(hidden)[0]
        other = int(logits.scatter(0, labels, -torch.inf).argmax())
        peak = float(model[:-1](hidden)[0, WIDTH])
        model[-1].weight[other, WIDTH] = (logits[labels] - logits[other] + 0.5) / peak
    return Problem(model, plain, inputs, labels, ball, hidden)


def found_by(method: str, problem: Problem, graph: Graph) -> Certificate:
    """What a method says of a problem."""
    limit = SECONDS if method == "branch" else None
    given = (problem.model, problem.inputs, problem.labels, problem.ball)
    return certify(*given, method=method, graph=graph, seconds=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=250)
    begin, total = time.perf_counter(), parser.parse_args().problems
    hidden = 0
    verified, falsified, high = (dict.fromkeys(METHODS, 0) for _ in range(3))
    for seed in range(total):
        one = problem(seed)
        graph, margin = trace(one.model, one.inputs), one.margin()
        hidden += margin < 0
        for method in METHODS:
            found = found_by(method, one, graph)
            verified[method] += bool(found.verified)
            falsified[method] += bool(found.falsified)
            high[method] += float(found.margin) > margin
    print(f"{total} networks, {hidden} of them with another answer at the hidden point")
    for method in METHODS:
        print(
            f"{method:9s} {verified[method]} verified, {falsified[method]} falsified, {high[method]} margins above "
            "that of the hidden point"
        )
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({
        "problems": total, "hidden": hidden, "verified": verified, "falsified": falsified, "too_high": high,
        "seconds": seconds,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
