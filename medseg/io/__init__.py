"""Bytes and volumes: any supported file becomes a `Volume` in RAS+ mm, and back.

A format is one module with `SUFFIXES`, `matches(path)`, `read(path, kind)`, `read_geometry(path)` and, where it can,
`write(volume, path)` for the names that end in its `WRITTEN`; `parts(path)` where a scan may lie in several files; `OPTIONS`
where its `read` takes more.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from medseg.errors import ConfigError, DataError
from medseg.io import dicom, dicom_seg, metaimage, nifti, nrrd, raster, rtstruct
from medseg.io._common import digest, sop_class
from medseg.io._references import References
from medseg.volume import Geometry, Kind, Volume

_OBJECTS: tuple[ModuleType, ...] = (dicom_seg, rtstruct)  # DICOM that holds no image
STRUCTURES = (*dicom_seg.CLASSES, rtstruct.CLASS)  # kinds of DICOM objects
_FORMATS: tuple[ModuleType, ...] = (*_OBJECTS, dicom, nifti, nrrd, metaimage, raster)
SUFFIXES: tuple[str, ...] = tuple(suffix for form in _FORMATS for suffix in form.SUFFIXES)
WRITTEN: tuple[str, ...] = tuple(suffix for form in _FORMATS for suffix in getattr(form, "WRITTEN", ()))


def read(path: str | Path, kind: Kind = "image", **options: Any) -> Volume:
    """Read a file, or a folder or zip that holds one DICOM volume.

    Args:
        path: NIfTI, NRRD, MetaImage, PNG, TIFF, JPEG or DICOM; of several volumes in one place `list_series` has the paths.
        kind: "labels" for a mask: whole numbers, whatever type the file stores them in.
        options: of DICOM: `allow_gaps`, `units="suv"`, `channels=True` for volumes of one grid (see `medseg.io.dicom.read`); of
            DICOM SEG and RTSTRUCT: `on`, the grid of the series that they were drawn on, for contours have none of their own; of
            plain images (PNG, TIFF, JPEG), which hold none: `spacing_mm` of columns, rows and pages. None is not given.

    Returns:
        The volume on its own grid; what was odd about the file is in `meta["notes"]`, and in `meta["labels"]` what the values
        mean where the file says so.

    Raises:
        DataError: no such file, an unknown format, or contents that cannot be trusted.
        GeometryError: its grid cannot be used.
        ConfigError: an option that the format does not have.
    """
    path, given = Path(path), {name: value for name, value in options.items() if value is not None}
    form = _format(path)
    if wrong := sorted(given.keys() - set(getattr(form, "OPTIONS", ()))):
        raise ConfigError(f"'{path}' cannot be read with {wrong[0]}: it is no option of its format. Leave it out.")
    with _untrusted(path):
        volume: Volume = form.read(path, kind, **given)
    return volume


def holds_structures(path: str | Path) -> bool:
    """Whether this is a DICOM Segmentation or an RTSTRUCT: labels with names, for a series elsewhere."""
    return sop_class(Path(path)) in STRUCTURES


def references(path: str | Path) -> tuple[References, ...]:
    """The images that a DICOM Segmentation or an RTSTRUCT refers to, by frame of reference; one entry at least.

    Raises:
        DataError: it is damaged, or neither.
    """
    found: tuple[References, ...] = _format(Path(path)).references(Path(path))
    return found


def read_geometry(path: str | Path) -> Geometry:
    """The grid of a file or a DICOM folder from its headers, without reading voxels.

    Raises:
        DataError: as `read`.
        GeometryError: as `read`.
    """
    with _untrusted(path):
        geometry: Geometry = _format(Path(path)).read_geometry(Path(path))
    return geometry


def write(volume: Volume, path: str | Path, *, parents: bool = False) -> None:
    """Write a volume whole or not at all, masks in the smallest integer type, in the format of the name's ending.

    Args:
        volume: image or mask.
        path: of the file; its folder is made if needed.
        parents: make the folders above that as well; otherwise they must exist, for a name may be mistyped.

    Raises:
        DataError: the ending is not one that can be written, the format cannot hold the volume, a folder is missing, or the
            disk is full.
    """
    path = Path(path)
    if not parents and not (above := path.parent.parent).is_dir():
        raise DataError(f"cannot write '{path}': there is no folder '{above}'. Correct the name, or make the folder.")
    for form in _FORMATS:
        if path.name.lower().endswith(getattr(form, "WRITTEN", ())):
            return form.write(volume, path)
    raise DataError(f"cannot write '{path}': its ending names no format that is written. Use {', '.join(WRITTEN)}.")


def parts(path: str | Path) -> list[Path]:
    """The files, or the DICOM folder, that hold a scan: a header may name another file for its voxels.

    Raises:
        DataError: as `read`, for a header that is refused.
    """
    path = Path(path)
    form = _format(path)
    with _untrusted(path):
        return form.parts(path) if hasattr(form, "parts") else [path]


def stem(path: str | Path) -> str:
    """The name of a case: a file's name without its ending.

    Names of DICOM files and folders often hold a patient's name: theirs is a hash of the SeriesInstanceUID. Of structures it is
    that of the series that they refer to, unless the name ends as medseg's own do: then it is that of a case already.
    """
    path = Path(path)
    if not exists(path) or any(path.name.lower().endswith(form.SUFFIXES) for form in _OBJECTS):
        return bare_name(path)
    if holds_structures(path):
        refers = references(path)
        return digest(next((uid for frame in refers for uid in frame.series), refers[0].own))
    return dicom.identifier(path) if dicom.matches(path) else bare_name(path)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder, or such a volume may be in the folder, file or zip that the path begins with."""
    return path.exists() or dicom.is_address(path)


def bare_name(path: Path) -> str:
    """The name of a file without its ending, or of a folder: not for people to see, for it may be a patient's (see `stem`).

    An accent is part of its letter, as on Linux and Windows: a Mac may have written it behind, and names would look equal and differ.
    """
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(ending(path))])


def ending(path: str | Path) -> str:
    """The ending of a file's name that tells its format, such as `.nii.gz`; nothing where none does."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


@contextlib.contextmanager
def _untrusted(path: str | Path) -> Iterator[None]:
    """Numbers of a damaged header may be none, or ask for any memory: grids are checked when they are made."""
    try:
        with np.errstate(all="ignore"):
            yield
    except MemoryError as error:
        raise DataError(
            f"'{path}' asks for more memory than there is: its header is damaged, or it is too large for this machine."
        ) from error


def _format(path: Path) -> ModuleType:
    if not exists(path):
        raise DataError(f"no such file or folder: '{path}'")
    if path.exists() and not os.access(path, os.R_OK):
        raise DataError(f"'{path}' may not be read by this user. Ask its owner, or copy it.")
    for form in _FORMATS:
        if form.matches(path):
            return form
    raise DataError(f"'{path}' is of no known format. Known: {', '.join(SUFFIXES)}, and folders of DICOM files.")
