"""RTSTRUCT: structures as closed planar contours in millimetres, which have no grid before a series gives them one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.io import _common
from medseg.io._pile import Pile, labels
from medseg.io._references import References
from medseg.io.rtstruct import _contours
from medseg.io.rtstruct._contours import Drawn, in_frames, structures
from medseg.io.rtstruct._fill import fill
from medseg.io.rtstruct._placing import notes, placed
from medseg.io.rtstruct._write import CLASS
from medseg.io.rtstruct._write import write as write
from medseg.volume import Geometry, Kind, Volume
from medseg.wording import counted

Header = Any

SUFFIXES = (".rtstruct.dcm",)
OPTIONS = ("on", "frames")


def matches(path: Path) -> bool:
    """Whether this is a file that holds an RTSTRUCT."""
    return _common.sop_class(path) == CLASS


def read(
    path: Path, kind: Kind = "labels", *, on: Geometry | None = None, frames: frozenset[str] | None = None
) -> Volume:
    """Fill the contours of all structures on the grid of a series, by the place of its voxels' centres alone.

    A centre belongs to a structure where it lies inside of an odd number of its contours in that slice (`_fill.fill`); which
    contours a slice shows is said in `_fill.slices`. A contour that comes twice counts once. Voxels have the number of their
    structure, or structures are channels where they overlap; `meta["labels"]` says which is which, `meta["names"]` how the file
    calls each: there names may come twice. Structures that run across the slices have no voxels; `meta["left_out"]` names them.

    Args:
        path: of the file.
        kind: taken as "labels" whatever it says.
        on: the grid, without which contours have no voxels.
        frames: FrameOfReferenceUIDs of the grid; structures in others are left out. None takes all.

    Raises:
        DataError: no grid is given; or the file is damaged, or holds points and open lines alone.
        GeometryError: all structures run across the slices, or lie outside of the grid.
    """
    if on is None:
        raise DataError(
            f"'{path}' holds contours, which become a mask on a grid alone: medseg.read(PATH, 'labels', on=GRID), where GRID is "
            "medseg.read(SERIES).geometry."
        )
    with _common.parsing(path):
        header = _header(path)
        every = structures(header)
        here = every if frames is None else in_frames(every, frames, header)
        found = placed(path, _filled_ones(path, here), on)
        pile = Pile(on.shape, len(found.structures))
        for k, positions in enumerate(found.shown):
            for number in dict.fromkeys(found.of[positions].tolist()):
                polygons = [found.contours[n][:, :2] for n in positions if found.of[n] == number]
                pile.add(number, k, fill(polygons, (on.shape[1], on.shape[0])))
        means = labels([item[:3] for item in found.structures], overlap=len(pile.array) > 1)
        said = (*notes(found), *_oddities(every, here, pile))
    meta = {"modality": "RTSTRUCT", "labels": means, "names": tuple(item.name for item in found.structures)}
    meta |= {"frames": tuple({_common.digest(item.frame) for item in found.structures if item.frame})}
    meta |= {"left_out": found.across, "notes": said, "stored_dtype": pile.array.dtype.name}
    return Volume(pile.array, on, "labels", meta)


def read_geometry(path: Path) -> Geometry:
    """Refuse: contours have no grid."""
    return read(path).geometry


def references(path: Path) -> tuple[References, ...]:
    """The images that the contours say they were drawn on, by frame of reference."""
    with _common.parsing(path):
        return _contours.references(_header(path))


def _header(path: Path) -> Header:
    import pydicom

    return pydicom.dcmread(path)


def _filled_ones(path: Path, here: Sequence[Drawn]) -> Sequence[Drawn]:
    """The structures with closed contours; all of them where nothing at all is drawn, for then they are empty.

    Raises:
        DataError: there are none.
    """
    drawn = [item for item in here if item.contours]
    if not drawn and (not here or any(item.open for item in here)):
        raise DataError(f"'{path}' holds no closed contours{'' if here else ' in the frame of reference of the scan'}.")
    return drawn or here


def _oddities(every: Sequence[Drawn], here: Sequence[Drawn], pile: Pile) -> Iterator[str]:
    """What is odd about the structures of an object and those of them that are in the scan's frame, in numbers."""
    if opened := sum(item.open for item in here):
        yield f"{counted(opened, 'point or open line is no structure', 'points and open lines are no structures')}: left out"
    if twice := sum(item.twice for item in here):
        yield f"{counted(twice, 'contour comes twice, and counts', 'contours come twice, and count')} once"
    if away := len(every) - len(here):
        yield f"{away} of {len(every)} structures lie in another frame of reference, and were left out"
    elif (several := len({item.frame for item in here if item.frame})) > 1:
        yield f"structures lie in {several} frames of reference; all were placed as if in that of the scan"
    if pile.overlap:
        yield f"structures overlap in {counted(pile.overlap, 'voxel')}"
