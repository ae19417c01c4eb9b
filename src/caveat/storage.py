"""Where signals go while a set is observed: lists in memory, or one safetensors file that is memory-mapped after."""

import json
import shutil
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from caveat.errors import DataError
from caveat.files import replacing, writing
from caveat.tensors import read_tensors

__all__ = ["File", "Memory"]


class Memory:
    """Collects batches in lists."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}
        self.rows = 0

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, name: str, tensor: Tensor) -> None:
        """Keep one more batch of the signal `name`."""
        self._parts.setdefault(name, []).append(tensor.cpu())
        self.rows += len(tensor)

    def signals(self) -> dict[str, Tensor]:
        """Everything that was added, joined."""
        with torch.inference_mode(False):  # so that the result can be used anywhere
            return {name: torch.cat(parts) for name, parts in self._parts.items()}


class File:
    """Streams batches to raw files and joins them to one safetensors file at the end.

    The format wants all sizes in its header before the first byte of data, and they are only known at the end.
    """

    _CODES = {  # noqa: RUF012  # a constant
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    }  # fmt: skip

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[torch.dtype, list[int]]] = {}
        self.rows = 0

    def __enter__(self) -> "File":
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one more batch of the signal `name`."""
        tensor = tensor.detach().cpu().contiguous()
        if name not in self._files:
            with writing(self._path):
                self._files[name] = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115  # closed in __exit__
            self._shapes[name] = (tensor.dtype, [0, *tensor.shape[1:]])
        dtype, shape = self._shapes[name]
        if dtype != tensor.dtype or shape[1:] != list(tensor.shape[1:]):
            came, expected = (tensor.dtype, list(tensor.shape[1:])), (dtype, shape[1:])
            raise DataError(f"{name}: expected the same kind of array in every batch: {expected}, got {came}")
        with writing(self._path):
            self._files[name].write(tensor.view(torch.uint8).flatten().numpy().data)
        shape[0] += len(tensor)
        self.rows += len(tensor)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.rows:
                self._join()
        finally:
            for file in self._files.values():
                with suppress(OSError):  # of a full disk: it writes what is left; `_join` has said so
                    file.close()

    def _join(self) -> None:
        header: dict[str, object] = {}
        offset = 0
        # largest alignment first is what the reference reader expects; int64 and floats of 8 bytes lead
        for name in sorted(self._files, key=lambda n: -self._shapes[n][0].itemsize):
            dtype, shape = self._shapes[name]
            size = self._files[name].tell()
            header[name] = {"dtype": self._CODES[dtype], "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with replacing(self._path) as temporary, temporary.open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in header:
                self._files[name].seek(0)
                shutil.copyfileobj(self._files[name], out, 1 << 22)

    def signals(self) -> dict[str, Tensor]:
        """Memory-map what was written; call after leaving the context."""
        return read_tensors(self._path)
