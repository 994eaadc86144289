"""Files as a bad disk, a broken transfer or a stranger leaves them: pure functions of bytes and a source of chance."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable

Mutation = Callable[[bytearray, random.Random], bytearray]

_WHOLE = (0, 1, -1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
_HEADER = 1024  # bytes in which most of what a reader believes is written
_PNG = b"\x89PNG\r\n\x1a\n"


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three mutations of a file's bytes, of what is compressed in it too, with its checksums put right.

    Args:
        data: a file that can be read.
        rng: the same one gives the same file.
    """
    with contextlib.suppress(OSError, EOFError, zlib.error):  # broken before
        if data[:2] == b"\x1f\x8b" and rng.random() < 0.8:
            return gzip.compress(bytes(_several(bytearray(gzip.decompress(data)), rng)), 1, mtime=0)
    changed = bytes(_several(bytearray(data), rng))
    return _with_sums(changed) if changed.startswith(_PNG) and rng.random() < 0.8 else changed


def _several(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data, rng) if data else data
    return data


def _place(data: bytearray, rng: random.Random) -> int:
    """Mostly in the header, where a byte counts most."""
    return rng.randrange(min(len(data), _HEADER) if rng.random() < 0.8 else len(data))


def cut_short(data: bytearray, rng: random.Random) -> bytearray:
    """Only the beginning."""
    return data[: min(rng.randrange(len(data)), rng.randrange(len(data)))]


def flipped(data: bytearray, rng: random.Random) -> bytearray:
    """Some bits the other way."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def lied(data: bytearray, rng: random.Random) -> bytearray:
    """A number that no honest header holds, in any width and order of bytes."""
    order, width = rng.choice("<>"), rng.choice((1, 2, 4, 8))
    at = _place(data, rng) // width * width
    if width >= 4 and rng.random() < 0.3:
        number = struct.pack(f"{order}{'f' if width == 4 else 'd'}", rng.choice(_FLOATS))
    else:
        number = (rng.choice(_WHOLE) % 256**width).to_bytes(width, "little" if order == "<" else "big")
    data[at : at + width] = number
    return data


def renumbered(data: bytearray, rng: random.Random) -> bytearray:
    """The same for a number that is written as text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:_HEADER]))
    if found:
        where, number = rng.choice(found), rng.choice((*_WHOLE, *_FLOATS, 2**64, "", "x"))
        data[where.start() : where.end()] = str(number).encode()
    return data


def reworded(data: bytearray, rng: random.Random) -> bytearray:
    """A line of text is lost, doubled or moved."""
    head, tail = data[:_HEADER], data[_HEADER:]
    lines = head.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.choice((0, 1, 2))):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return bytearray(b"\n".join(lines)) + tail


def dropped(data: bytearray, rng: random.Random) -> bytearray:
    """A piece is missing."""
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 64, 4096)) :]


def repeated(data: bytearray, rng: random.Random) -> bytearray:
    """A piece is there twice, or stands in another's place."""
    at, to, size = _place(data, rng), _place(data, rng), rng.choice((1, 2, 4, 64, 4096))
    return data[:to] + data[at : at + size] + data[to + rng.choice((0, size)) :]


MUTATIONS: tuple[Mutation, ...] = (cut_short, flipped, lied, lied, lied, renumbered, reworded, dropped, repeated)


def _with_sums(data: bytes) -> bytes:
    """A PNG with the checksum of every part made anew, so that a reader believes what stands in it."""
    made, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        made += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(made)
