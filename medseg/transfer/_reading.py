"""Tensors by name out of .safetensors, .pt and .pth files, of torch before and after 1.6; without torch.load, so that no code runs."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from medseg.errors import BundleError
from medseg.transfer import _pickled
from medseg.transfer._pickled import Stored

# Under these a checkpoint keeps its weights; the second is nnU-Net's.
_WRAPPERS = ("state_dict", "network_weights", "model_state_dict", "model_state", "state_dict_ema", "model", "net")
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch before 1.6, first of five pickles
_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What reading a file that is none ends in.
_ODD = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, StopIteration, TypeError),
    *(ValueError, struct.error, zipfile.BadZipFile),
)
Bytes = Callable[[str, int], bytes]  # of the storage of a key, so many


def read(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file, in its order and of its types.

    Raises:
        BundleError: no such file, or one that holds anything but weights.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"no file of weights '{path.name}'. Name a .safetensors, .pt or .pth file.")
    try:
        return _safe(path) if path.suffix == ".safetensors" else _torch(path)
    except _ODD as error:
        raise BundleError(f"'{path.name}' is damaged, or holds no weights. Copy it again.") from error


def _safe(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError from error


def _torch(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            return _before_1_6(stream)
        with zipfile.ZipFile(stream) as archive:
            return _tensors(*_zipped(archive))


def _zipped(archive: zipfile.ZipFile) -> tuple[Any, Bytes]:
    """What a file of torch 1.6 and later holds: `ROOT/data.pkl`, and `ROOT/data/KEY` for each storage, none compressed."""
    (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
    root = name.removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError
    return _pickled.load(archive.read(name))[0], lambda key, count: archive.read(f"{root}data/{key}")[:count]


def _before_1_6(stream: IO[bytes]) -> dict[str, Tensor]:
    """What an older file holds: three pickles of form, one of content, one of keys, then the storages with their lengths."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    (magic, _), *_, (content, storages), (keys, _) = [_pickled.load(stream) for _ in range(5)]
    if magic != _MAGIC:
        raise ValueError
    sizes, places = {str(key): _dtype(kind).itemsize for kind, key, *_ in storages}, {}
    for key in map(str, keys):
        (count,) = struct.unpack("<q", stream.read(8))
        places[key] = stream.tell()
        stream.seek(count * sizes[key], io.SEEK_CUR)

    def part(key: str, count: int) -> bytes:
        stream.seek(places[key])
        return stream.read(min(count, end))

    return _tensors(content, part)


def _weights(content: Any) -> dict[str, Stored]:
    """The state dict in a checkpoint, which may have wrappers and other tensors beside them, such as a best accuracy."""
    inner = (_weights(content[key]) for key in _WRAPPERS if isinstance(content.get(key), Mapping))
    own = {str(key): value for key, value in content.items() if isinstance(value, Stored)}
    return next(filter(None, inner), own)


def _tensors(content: Any, part: Bytes) -> dict[str, Tensor]:
    if not (weights := _weights(content)):
        raise ValueError
    held: dict[str, Tensor] = {}
    return {name: _tensor(stored, part, held) for name, stored in weights.items()}


def _tensor(stored: Stored, part: Bytes, held: dict[str, Tensor]) -> Tensor:
    kind, key, _, count, *_ = stored.storage
    dtype = _dtype(kind)
    if math.prod(stored.size) > count:  # weights never overlap, and a stride of 0 makes any number of one
        raise ValueError
    if (key := str(key)) not in held:
        data = bytearray(part(key, count * dtype.itemsize))
        held[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return held[key].as_strided(stored.size, stored.stride, stored.offset)


def _dtype(kind: str) -> torch.dtype:
    return _TYPES[kind.rpartition(".")[2]]
