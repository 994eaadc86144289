"""Whether a PNG holds what its header promises: Pillow takes rows that are missing for black ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_CHUNK = 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by type of colour: grey, RGB, palette, grey and RGB with opacity


def is_whole(path: Path) -> bool:
    """Whether all rows are there (https://www.w3.org/TR/png-3/, sections 7.2 and 11.2); they are counted without being kept.

    Interlaced files, which have their rows in seven passes, are believed.

    Raises:
        struct.error, KeyError, zlib.error: it is no PNG.
    """
    engine, unpacked = zlib.decompressobj(), 0
    with path.open("rb") as stream:
        stream.seek(16)
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", stream.read(13))
        needed = height * (1 + (width * depth * _CHANNELS[colour] + 7) // 8)
        stream.seek(8)
        while not interlaced and unpacked < needed and len(head := stream.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            block = stream.read(size) if kind == b"IDAT" else b""
            while block:
                unpacked += len(engine.decompress(block, _CHUNK))
                block = engine.unconsumed_tail
            stream.seek(4 if kind == b"IDAT" else size + 4, 1)
    return bool(interlaced) or unpacked >= needed
