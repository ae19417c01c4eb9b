"""The README, run as it is printed: its Python in one namespace of stand-ins, its commands by the real command line.

Also a script, for an environment that holds nothing but the installed wheel (`make wheel`):

    python tests/readme.py README.md
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["blocks", "commands", "run_python", "stand_ins"]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every line that begins with `caveat`, indented or in a block or a workflow, continued lines joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^\s+(?:- run: |run: |\$ )?(caveat .*)$", joined, flags=re.MULTILINE)
    return [re.sub(r"\s+#.*$", "", line) for line in found]


def stand_ins() -> dict[str, Any]:
    """What the README takes as the reader's own: a small network that has learnt its classes, and sets."""
    generator = torch.Generator().manual_seed(0)

    def set_of(count: int, distance: float = 3.0) -> list[tuple[Tensor, Tensor]]:
        labels = torch.arange(count) % 3
        images = torch.rand(count, 1, 4, 4, generator=generator) / 2
        images.flatten(1)[torch.arange(count), labels] += distance / 6
        return list(zip(images.split(50), labels.split(50), strict=True))

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model[1].weight.copy_(10 * torch.eye(3, 16))
        model[1].bias.zero_()
    cars = [(images / 4, labels) for images, labels in set_of(100)]
    return {
        "model": model, "test_loader": set_of(300), "train_loader": set_of(300), "held_out_loader": set_of(300),
        "cars_loader": cars, "images": set_of(10)[0][0],
    }  # fmt: skip


def run_python(text: str) -> dict[str, Any]:
    """Run every Python block in one namespace, in the present folder; gives the namespace afterwards."""
    namespace = stand_ins()
    for number, block in enumerate(blocks(text, "python"), start=1):
        exec(compile(block, f"README, block {number}", "exec"), namespace)
    return namespace


if __name__ == "__main__":
    readme = Path(sys.argv[1]).read_text()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = run_python(readme)
    accepted = found["verdict"].accepted.float().mean()
    print(f"ran: the README's Python, as printed; its guard accepts {accepted:.0%} of the images")
