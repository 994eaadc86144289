"""DICOM as it comes from a scanner, a PACS or a CD. What is not understood is refused with its numbers, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.errors import DataError, GeometryError
from medseg.io import _common
from medseg.io.dicom import _addresses, _describe, _facts, _gaps, _listing, _sources, _suv, _values
from medseg.io.dicom._addresses import is_address as is_address
from medseg.io.dicom._found import Found as Found
from medseg.io.dicom._listing import Listing as Listing
from medseg.volume import Geometry, Kind, Volume

Units = Literal["stored", "suv"]

SUFFIXES = (*_sources.SUFFIXES, ".zip")
OPTIONS = ("allow_gaps", "units", "channels")
_SAME_MM = 1e-3
_TO_FILL = (
    "To have it resampled on its true positions: medseg convert SRC DST --allow-gaps (in Python allow_gaps=True)."
)
_TO_MERGE = (
    "If both hold equal values, one is used with: medseg convert SRC DST --allow-gaps (in Python allow_gaps=True)."
)


def matches(path: Path) -> bool:
    """Whether this is a folder, an address in one or, by its name or first bytes, a DICOM file or a zip."""
    if path.is_dir() or _addresses.is_address(path) or _common.has_suffix(path, SUFFIXES):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _sources.looks_like_dicom(stream.read(_sources.START))


def find(path: str | Path) -> Listing:
    """The volumes in a file, a folder and those below, a DICOMDIR or a zip, from headers alone.

    Raises:
        DataError: nothing is there, or a zip or a DICOMDIR cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such file or folder: '{path}'")
    return _listing.find(path)


def read(
    path: Path, kind: Kind, *, allow_gaps: bool = False, units: Units = "stored", channels: bool = False
) -> Volume:
    """Read the one volume of a file, a folder, a DICOMDIR or a zip, or the one that an address names.

    Planes are sorted by their position along the normal of the image plane. A tilted gantry shears the grid, and the affine
    says so exactly. Stored values become Hounsfield or other units plane by plane, and stay integers where slope and intercept
    are whole. MONOCHROME1 tells a screen to show low values bright: the values themselves are kept, like those of padding.

    Args:
        path: what `find` takes, or the path of one of its volumes.
        kind: "labels" takes the nearer value where gaps are filled.
        allow_gaps: fill gaps and even out spacing, by linear interpolation between the slices at their true positions.
        units: "suv" makes PET that of body weight (see `_suv`); all else keeps the unit that the file's rescaling gives.
        channels: take all volumes that share a grid, in the order of their time, as channels of one.

    Raises:
        DataError: no volume or several, colour, a compression without decoder, damaged files, no SUV.
        GeometryError: no positions, several images in one place, or positions that form no regular grid.
    """
    found = _chosen(path, several=channels)
    volumes = [load(item, kind, allow_gaps=allow_gaps, units=units, path=path) for item in found]
    return together(path, volumes)


def load(
    found: Found, kind: Kind = "image", *, allow_gaps: bool = False, units: Units = "stored", path: Path | None = None
) -> Volume:
    """Read a volume that `find` found; see `read`. Errors name `path`, or else the volume's own."""
    path = path or found.path
    grid = _usable_grid(path, found, allow_gaps)
    try:
        suv = _suv.of(found.stack.planes) if units == "suv" and found.file.modality == "PT" else None
        array, notes = _gaps.filled(_values.voxels(found.stack.planes), found.stack, kind)
        meta = _facts.of(found, suv, notes)
    except DataError as error:
        raise type(error)(f"'{path}': {error}") from error
    if suv:
        array = (array * suv.factor).astype(np.float32)
    return _common.volume(path, array.T[None], grid, kind, meta)


def read_geometry(path: Path) -> Geometry:
    """The grid, from the headers alone.

    Raises:
        DataError: as `read`.
        GeometryError: as `read`.
    """
    return _usable_grid(path, _chosen(path)[0])


def identifier(path: Path) -> str:
    """A name that tells nothing about the patient: a hash of the SeriesInstanceUID.

    It is one of the path where there is no such series or several: reading it will say why.
    """
    if _addresses.is_address(path):
        return path.stem
    try:
        names = {found.id.partition("-")[0] for found in _listed(path)[0]}
    except DataError:
        names = set()
    return names.pop() if len(names) == 1 else _common.digest(str(path))


def _listed(path: Path) -> tuple[tuple[Found, ...], Listing]:
    """The volumes that a path names, and all that lie there."""
    root, name = _addresses.split(path)
    listing = _listing.find(root)
    return tuple(found for found in listing.volumes if not name or found.id == name), listing


def _chosen(path: Path, several: bool = False) -> tuple[Found, ...]:
    """The volume that a path names, or `several`.

    Raises:
        DataError: there are none, more than wanted, or damaged files that may belong to it.
    """
    volumes, listing = _listed(path)
    if not _addresses.is_address(path) and listing.damaged:
        of_it = "" if path.is_file() and len(listing.damaged) == 1 else f"one of {len(listing.damaged)} damaged files "
        raise DataError(f"'{path}': {of_it}{listing.damaged[0].problem}. Export the series again.")
    if not volumes:
        aside = f"; set aside: {_describe.counted(listing.aside)}" if listing.aside else ""
        raise DataError(f"'{path}' holds no DICOM images of a volume{aside}. Name a series of images.")
    if len(volumes) > 1 and not several:
        raise DataError(
            f"'{path}' holds {len(volumes)} volumes: {_describe.one_line(volumes)}. Name one as '{path}/ID.dicom', take volumes of "
            "one grid as channels (channels=True), or see them all with 'medseg convert --list'."
        )
    return volumes


def _usable_grid(path: Path, found: Found, allow_gaps: bool = False) -> Geometry:
    """The grid of a volume that can be read."""
    if found.problem:
        raise DataError(f"'{path}': {found.problem}.")
    if found.stack.grid is None:
        raise GeometryError(f"'{path}': {found.refusal}.")
    if found.stack.uneven and not allow_gaps:
        twice = len(set(found.stack.at)) < len(found.stack.at)
        raise GeometryError(f"'{path}': {found.stack.uneven}. {_TO_MERGE if twice else _TO_FILL}")
    return found.stack.grid


def together(path: Path, volumes: Sequence[Volume]) -> Volume:
    """Volumes of one grid as channels of one; the only one as it is.

    Raises:
        GeometryError: their grids differ; `path` is named.
    """
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for number, volume in enumerate(volumes[1:], 2):
        if volume.geometry.shape != first.geometry.shape or volume.geometry.apart_mm(first.geometry) > _SAME_MM:
            raise GeometryError(
                f"'{path}': volume {number} of {len(volumes)} lies on another grid than the first. Name one."
            )
    notes = dict.fromkeys(note for volume in volumes for note in volume.meta["notes"])
    labels = tuple(volume.meta["label"] for volume in volumes)
    array = np.concatenate([volume.array for volume in volumes])
    return first.replace(array=array, meta={**first.meta, "label": "", "labels": labels, "notes": tuple(notes)})
