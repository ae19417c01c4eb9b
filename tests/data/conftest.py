"""Small sets on disk, made by other means than the code under test."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def arrays() -> np.ndarray:
    """23 pictures of 6x5 pixels, three channels, all different."""
    return np.random.default_rng(3).integers(0, 256, (23, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    def write(
        path: Path,
        pictures: list[bytes],
        labels: list[int] | None,
        *,
        column: str = "image",
        label: str = "label",
        metadata: bytes | None = None,
        group: int = 7,
    ) -> Path:
        table = pa.table({column: [{"bytes": data, "path": None} for data in pictures]})
        if labels is not None:
            table = table.append_column(label, pa.array(labels, pa.int64()))
        if metadata:
            table = table.replace_schema_metadata({b"huggingface": metadata})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=group)
        return path

    return write
