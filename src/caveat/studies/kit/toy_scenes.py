"""A synthetic street in the layout of CamVid: for trying things without its data."""

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_toy_camvid"]

HEIGHT, WIDTH = 40, 56
SHADES = {
    0: (150, 190, 230), 1: (130, 90, 70), 3: (90, 90, 95), 4: (160, 150, 150), 5: (50, 110, 50),
    8: (200, 40, 40), 9: (240, 200, 60), 10: (200, 60, 200), 11: (0, 0, 0),
}  # fmt: skip


def write_toy_camvid(root: Path, *, seed: int = 0) -> None:
    """Sky, buildings, trees, road and pavement; now and then a car, a pedestrian, a bicyclist; 12, 2 and 4 scenes.

    What is there already stays.
    """
    random = np.random.default_rng(seed)
    for split, count in (("train", 12), ("val", 2), ("test", 4)):
        lines: list[str] = []
        for number in range(count):
            labels = _street(random)
            shades = np.array([SHADES.get(value, (0, 0, 0)) for value in range(12)], dtype=float)
            picture = np.clip(shades[labels] + random.normal(0, 12, (*labels.shape, 3)), 0, 255).astype(np.uint8)
            name = f"{split}{number}.png"
            for folder, array in ((split, picture), (f"{split}annot", labels.astype(np.uint8))):
                place = root / folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    Image.fromarray(array).save(place)
            lines.append(f"{split}/{name} {split}annot/{name}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _street(random: np.random.Generator) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    for left in range(0, WIDTH, 8):
        labels[random.integers(4, 16) :, left : left + 8] = random.choice([1, 5])
    labels[24:28] = 4
    labels[28:] = 3
    labels[-1] = 11
    for value, height, width in ((8, 7, 12), (9, 8, 3), (10, 7, 5)):
        if random.random() < 0.7:
            top, left = random.integers(20, 30), random.integers(0, WIDTH - width)
            labels[top : top + height, left : left + width] = value
    return labels
