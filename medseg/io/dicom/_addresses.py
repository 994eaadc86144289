"""A path for each volume, whatever else lies beside it: `study/3f2a9c41d0aa-2.dicom` is a volume in `study`, by its id.

So that one of several series in a folder, a file or a zip can be named wherever a path is taken: on the command line, in a CSV.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

_ENDING = ".dicom"
_ID = re.compile(r"[0-9a-f]{12}(-\d+)?")


def is_address(path: Path) -> bool:
    """Whether this names a volume within something that is there, and no file of its own."""
    named = path.suffix == _ENDING and _ID.fullmatch(path.stem) is not None
    return named and not path.exists() and path.parent.exists()


def split(path: Path) -> tuple[Path, str]:
    """What is to be looked through, and the id of a volume in it; empty where the path is not an address."""
    return (path.parent, path.stem) if is_address(path) else (path, "")


def addresses(root: Path, ids: Sequence[str], files: Sequence[Iterable[Path]], damaged: Iterable[Path]) -> list[Path]:
    """The path of each volume: the folder, or else the file, that holds nothing but it, or an address in it.

    Args:
        root: that was looked through.
        ids: of the volumes.
        files: of each volume.
        damaged: files that may be of any of them.
    """
    inside: dict[Path, set[int]] = defaultdict(set)
    for number, paths in [*enumerate(files), (-1, damaged)]:
        for path in set(paths):
            for container in (path, *path.parents):
                inside[container].add(number)
                if container == root:
                    break
    return [_address(root, name, number, set(files[number]), inside) for number, name in enumerate(ids)]


def _address(root: Path, name: str, number: int, files: set[Path], inside: dict[Path, set[int]]) -> Path:
    whole = root if root in files else Path(os.path.commonpath([file.parent for file in files]))
    for container in (whole, *files) if len(files) == 1 else (whole,):
        if inside[container] == {number}:
            return container
    return whole / f"{name}{_ENDING}"
