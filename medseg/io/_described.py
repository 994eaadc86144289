"""What NRRD and MetaImage share: a header of text, before its voxels or beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError
from medseg.io import _common, _packed
from medseg.volume import Geometry, Kind, Volume

_HEADER = 1 << 20  # bytes in which a header must end
_MOST_AXES = 4
UNSIZED = "the header does not say how large voxels are along each axis: 1 mm is taken where it does not"

UNORIENTED = "the header does not say which way in the patient its space goes (LPS, RAS or LAS): LPS is taken"


@dataclass(frozen=True)
class Described:
    """What a header says.

    Args:
        sizes: of all axes, the fastest first.
        channels: the axis that is none of space; None where all are.
        affine: (4, 4) index -> LPS mm.
        voxels: where the numbers are stored and how, as `_packed.voxels` takes it.
        sized: whether it says how large voxels are, which are 1 mm otherwise.
        oriented: whether it says which way in the patient its space goes, which is LPS otherwise.
    """

    path: Path
    sizes: tuple[int, ...]
    channels: int | None
    affine: Array
    dtype: np.dtype[Any]
    voxels: dict[str, Any]
    sized: bool
    oriented: bool = True

    def geometry(self) -> Geometry:
        """The grid."""
        spatial = [size for axis, size in enumerate(self.sizes) if axis != self.channels]
        return _common.geometry(self.path, (*spatial, 1)[:3], self.affine, lps=True)

    def volume(self, kind: Kind) -> Volume:
        """Grid and voxels; what is none of space becomes channels."""
        grid = self.geometry()
        array = _packed.voxels(dtype=self.dtype, shape=self.sizes, **self.voxels)
        if self.channels is not None:
            array = np.moveaxis(array, self.channels, 0)
        said = [note for note, known in ((UNSIZED, self.sized), (UNORIENTED, self.oriented)) if not known]
        meta = {"notes": (*said, *_common.shear_note(grid))}
        return _common.volume(self.path, array.reshape((-1, *grid.shape), order="A"), grid, kind, meta)


def readers(
    header: Callable[[Path], Described],
) -> tuple[Callable[[Path, Kind], Volume], Callable[[Path], Geometry], Callable[[Path], list[Path]]]:
    """What reads a format of which `header` reads the head: `read`, `read_geometry` and `parts`.

    Components or time become channels, a 2D image has K == 1. The parts are the header and the file of voxels that it names.
    All raise DataError where the file is damaged or holds something else; the first two GeometryError where its grid cannot be used.
    """

    def read(path: Path, kind: Kind) -> Volume:
        return header(path).volume(kind)

    def read_geometry(path: Path) -> Geometry:
        return header(path).geometry()

    def parts(path: Path) -> list[Path]:
        return sorted({path, header(path).voxels["path"]})

    return read, read_geometry, parts


def lines(path: Path, name: str) -> tuple[list[str], int]:
    """The lines of a header up to its end, and the byte behind it.

    Args:
        path: the file.
        name: of its format, "NRRD" or "MetaImage".

    Raises:
        DataError: it is no such file, or its header has no end.
    """
    with path.open("rb") as stream:
        if name == "NRRD" and stream.read(4) != b"NRRD":
            raise not_one(path)
        stream.seek(0)
        found: list[str] = []
        while line := stream.readline(_HEADER):
            found.append(os.fsdecode(line).strip())
            if stream.tell() > _HEADER:
                raise DataError(f"'{path}' has a header of more than {_HEADER:,} bytes. Save it anew.")
            if not found[-1] if name == "NRRD" else found[-1].replace(" ", "").startswith("ElementDataFile="):
                break
        return found, stream.tell()


def not_one(path: Path) -> DataError:
    """What to say of a header that cannot be understood."""
    return DataError(f"'{path}' is no NRRD or MetaImage file, or its header is damaged. Copy it again from its source.")


def beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names.

    Raises:
        DataError: it names several, none that is there, or one in another folder: a header may come from a stranger, and
            would have any file of this machine read.
    """
    if "%" in name or name.split()[:1] == ["LIST"]:
        raise DataError(f"'{path}' has its voxels in several files; expected one. Save it anew as .nrrd or .mha.")
    folder = os.path.abspath(path.parent)
    voxels = Path(os.path.abspath(os.path.join(folder, name)))
    if "\0" in name or not voxels.is_relative_to(folder):
        raise DataError(
            f"'{path}' names a file of voxels outside its own folder, which is not read. Put the file beside the header, "
            "and its bare name into it."
        )
    if not voxels.is_file():
        raise DataError(f"'{path}' is a header only: its voxels, '{name}', are missing. Put the file beside it.")
    return voxels


def affine(axes: Sequence[Array], origin: Sequence[float]) -> Array:
    """The matrix of a grid of two or three axes, each with its step in mm; a slice has its normal for a third."""
    made = np.eye(4)
    if len(axes) == 2 and len(axes[0]) == 3:
        normal = np.cross(axes[0], axes[1])
        axes = [*axes, normal / max(float(np.linalg.norm(normal)), 1e-30)]
    for number, step in enumerate(axes):
        made[: len(step), number] = step
    made[: len(origin), 3] = origin
    return made


def checked_sizes(path: Path, sizes: Sequence[int], axes: int) -> tuple[int, ...]:
    """The sizes of all axes, if they are as many as the header says and none is empty."""
    if len(sizes) != axes or not 2 <= axes <= _MOST_AXES or min(sizes) < 1:
        raise DataError(
            f"'{path}' has the sizes {list(sizes)[:8]} for {axes} axes; expected two or three, and channels."
        )
    return tuple(sizes)
