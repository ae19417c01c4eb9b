"""What a hostile set is: data as strangers make them, each with what an audit of it must say.

All are made from one set of three classes of ten pictures, of which four lie in the wrong class; `corners` is a network
that says what a picture shows. So an independent oracle knows every label and every prediction.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.edges.hostile_pictures import drawn, plain

NETS = """
import torch
from torch import nn

class corners(nn.Module):
    def __init__(self, *, classes=3):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        quarters = nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)[:, :3]
        return nn.functional.pad(20 * quarters, (0, self.classes - 3), value=-9.0)
"""
CLASSES = ("ant", "bee", "cat")
EACH = 10
WRONG = {(0, 0): 1, (1, 1): 2, (1, 2): 2, (2, 3): 0}
"""What a picture shows that lies in another class, by class and number."""

Rows = list[tuple[int, int]]
"""Label and what the picture shows, of every sample that is to be read."""


@dataclass(frozen=True)
class Right:
    """What an audit may say: one of these rows, and these words among its warnings and notes; else a refusal."""

    rows: tuple[Rows, ...] = ()
    said: tuple[str, ...] = ()
    refusal: bool = False
    """Whether it may refuse too."""


@dataclass(frozen=True)
class Hostile:
    """A set that `make` writes to a folder, and how it is audited there."""

    name: str
    make: Callable[[Path], Right]
    spec: str
    options: tuple[str, ...] = ()
    model: str = "corner_nets:corners"


REFUSED = Right()


def items() -> list[tuple[int, int, int]]:
    """Class, number and what is shown, of every picture."""
    return [(label, number, WRONG.get((label, number), label)) for label in range(3) for number in range(EACH)]


def rows(keep: Callable[[int, int], bool] = lambda label, number: True) -> Rows:
    return [(label, shown) for label, number, shown in items() if keep(label, number)]


def folder(place: Path, *, names: tuple[str, ...] = CLASSES) -> Path:
    """The set as a folder: `ant/00.png` and so on."""
    for label, number, shown in items():
        (place / names[label]).mkdir(parents=True, exist_ok=True)
        (place / names[label] / f"{number:02}.png").write_bytes(plain(drawn(shown, number)))
    return place


def parquet_file(
    path: Path,
    *,
    images: Any = None,
    labels: Any = None,
    names: Any = None,
    columns: tuple[str, ...] = ("image", "label"),
) -> None:
    """The set as a Parquet file of several row groups; `None` for labels leaves them as they are."""
    images = [plain(drawn(shown, number)) for _, number, shown in items()] if images is None else images
    labels = pa.array([label for label, _, _ in items()]) if labels is None else labels
    if isinstance(images, list):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array(
            [image if isinstance(image, dict) else {"bytes": image, "path": None} for image in images], kind
        )
    made = [images, labels, *([labels] * len(columns))][: len(columns)]
    table = pa.Table.from_arrays(made, names=list(columns))
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        text = names if isinstance(names, bytes) else json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, row_group_size=7)
