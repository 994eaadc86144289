"""Voxels out of files whose headers may lie: memory is taken only as far as a file backs it, and time only as far as it is long.

What a large `numpy.empty` promises is taken page by page as it is written: an array that is never filled costs nothing.
"""

from __future__ import annotations

import bz2
import math
import warnings
import zlib
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from medseg import memory
from medseg.arrays import Array
from medseg.errors import DataError

Packing = Literal["raw", "deflate", "bzip2", "text"]

DAMAGE = (OSError, EOFError, ValueError, DeprecationWarning, zlib.error)
_CHUNK = 1 << 20
_MAX_DEFLATE_RATIO = 1032  # zlib cannot shrink data further than this
_MOST_BEHIND = 1 << 20  # bytes behind the voxels; a bomb has more
_MOST_BEFORE = 1 << 26
_ANY_HEADER = 47  # zlib's name for: zlib's own header, or that of gzip


def is_deflated(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def beginning(path: Path, count: int) -> bytes:
    """The first bytes of a file, of its contents where it is gzipped, and no more than that is unpacked.

    Raises:
        zlib.error, OSError: it cannot be unpacked or read.
    """
    with path.open("rb") as stream:
        raw = stream.read(max(count, 1 << 16))
    return zlib.decompressobj(_ANY_HEADER).decompress(raw, count) if raw[:2] == b"\x1f\x8b" else raw[:count]


def voxels(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], packing: Packing = "raw", offset: int = 0, skip: int = 0
) -> Array:
    """An array in the order of a file: its first axis runs fastest.

    Args:
        path: the file, which is named in errors.
        dtype: of its numbers.
        shape: of the array.
        packing: how they are stored.
        offset: byte of the file at which they, or the packed stream, begin; -1 for raw ones that end with the file.
        skip: bytes of the unpacked stream before them.

    Raises:
        DataError: the file is too short, damaged, or holds more than the memory that is free.
    """
    needed = math.prod(shape) * dtype.itemsize
    if offset == -1 and packing == "raw":
        offset = path.stat().st_size - needed
    check_size(path, needed, packing, offset, skip)
    try:
        if packing == "raw":
            flat = np.fromfile(path, dtype, math.prod(shape), offset=offset + skip)
        elif packing == "text":
            flat = _from_text(path, offset, dtype, math.prod(shape))
        else:
            raw = np.empty(needed, np.uint8)
            with path.open("rb") as stream:
                stream.seek(offset)
                (_inflate if packing == "deflate" else _unzip)(stream, raw, skip)
            flat = raw.view(dtype)
        return flat.reshape(shape, order="F")
    except DAMAGE as error:
        raise DataError(f"'{path}' is cut short or damaged. Copy it again from its source.") from error


def check_size(path: Path, needed: int, packing: Packing, offset: int = 0, skip: int = 0) -> None:
    """Refuse a file that cannot hold what its header promises, or more than there is room for."""
    there = path.stat().st_size
    longest = {"raw": there, "deflate": there * _MAX_DEFLATE_RATIO, "bzip2": math.inf, "text": 4 * there}[packing]
    if offset < 0 or skip < 0 or skip > _MOST_BEFORE or offset + skip + needed > longest:
        raise DataError(
            f"'{path}' is cut short or its header is wrong: it promises {offset + skip + needed:,} bytes, "
            f"the file has {there:,}. Copy it again from its source."
        )
    check_memory(path, needed)


def check_memory(path: Path, needed: int) -> None:
    """Refuse what there is no room for, before memory is asked for it.

    Raises:
        DataError: it holds more bytes than are free.
    """
    if needed > (free := memory.free_bytes()):
        raise DataError(
            f"'{path}' holds {needed / 1e9:.1f} GB of voxels, but {free / 1e9:.1f} GB of memory are free. "
            "Close other programs, or cut it into parts."
        )


def _inflate(stream: IO[bytes], into: Array, skip: int) -> None:
    """Unpack zlib's or gzip's stream, of several members too, and have its checksum looked at."""
    engine, done, block = zlib.decompressobj(_ANY_HEADER), -skip, b""
    while done < len(into) or not engine.eof:
        if engine.eof:
            engine = zlib.decompressobj(_ANY_HEADER)
        if block := block or stream.read(_CHUNK):
            piece = engine.decompress(block, _CHUNK)
            block = engine.unconsumed_tail or engine.unused_data
        else:
            piece = engine.flush()
            if not engine.eof:
                raise EOFError
        done = _put(piece, into, done)
        if done > len(into) + _MOST_BEHIND:
            raise ValueError("there is more than the header says")


def _unzip(stream: IO[bytes], into: Array, skip: int) -> None:
    done = -skip
    with bz2.open(stream) as unpacked:
        while done < len(into):
            if not (piece := unpacked.read(_CHUNK)):
                raise EOFError
            done = _put(piece, into, done)


def _put(piece: bytes, into: Array, done: int) -> int:
    """Write what comes next in a stream, of which negative places lie before the array; where the stream is then."""
    first, last = max(done, 0), min(done + len(piece), len(into))
    if last > first:
        into[first:last] = np.frombuffer(piece, np.uint8, last - first, first - done)
    return done + len(piece)


def _from_text(path: Path, offset: int, dtype: np.dtype[Any], count: int) -> Array:
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for what is no number
        stream.seek(offset)
        numbers = np.fromfile(stream, np.float64 if dtype.kind == "f" else np.int64, count, " ")
    if dtype.kind != "f" and (numbers.size and not np.array_equal(numbers.astype(dtype), numbers)):
        raise ValueError("a number is too large")
    return numbers.astype(dtype)
