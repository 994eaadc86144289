"""DICOM series as objects of labels need them: their headers in the order of slices, and all of a tree by what they are called.

The one place that asks `io.dicom` for more than volumes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg import io
from medseg.errors import DataError
from medseg.io import _common, dicom
from medseg.io._source import NEEDED, Source

Header = Any
_NAMES = [
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "Rows",
]


@dataclass(frozen=True)
class Series:
    """A series of images in a tree.

    Args:
        uid: its SeriesInstanceUID.
        path: of its file, or of the folder that all its files lie in or below.
        modality: `CT`, `MR`, `PT` ...
        frame: its FrameOfReferenceUID.
        instances: SOPInstanceUIDs of its images.
        patient: what tells patients apart: the PatientID, or the study where that is empty. Never to be shown.
    """

    uid: str
    path: Path
    modality: str
    frame: str
    instances: frozenset[str]
    patient: str

    @property
    def id(self) -> str:
        """A name that tells nothing about the patient."""
        return _common.digest(self.uid)


def check(path: Path) -> None:
    """Refuse what is no DICOM.

    Raises:
        DataError: it is none.
    """
    if not path.exists() or not dicom.matches(path):
        raise DataError(
            f"'{io.stem(path)}{io.ending(path)}' is no DICOM series, to which alone a DICOM object can refer. Use --format nii.gz."
        )


def source(path: Path) -> Source:
    """The series of a folder or a file, for an object that refers to it.

    Raises:
        DataError: it is no DICOM, or cannot be referred to.
        GeometryError: as `io.read`.
    """
    import pydicom

    check(path)
    series = dicom._series(path)
    grid, order, _ = dicom._grid(path, series)
    with _common.parsing(path):
        tags = list(NEEDED)
        headers = [pydicom.dcmread(series[n].filename, stop_before_pixels=True, specific_tags=tags) for n in order]
        return Source.of(headers, grid)


def listing(root: Path) -> tuple[list[Series], list[Path]]:
    """The series of images in and below a folder, and the objects that hold structures; no series where there are no objects.

    Files that cannot be read are left out.
    """
    files = sorted(
        Path(folder, name) for folder, _, names in os.walk(root) for name in names if not name.startswith(".")
    )
    kinds = {file: kind for file in files if (kind := _common.sop_class(file))}
    objects = [file for file, kind in kinds.items() if kind in io.STRUCTURES]
    found: dict[str, list[Header]] = {}
    for header in _images(file for file in kinds if objects and kinds[file] not in io.STRUCTURES):
        found.setdefault(str(header.SeriesInstanceUID), []).append(header)
    return [_series(uid, headers) for uid, headers in found.items()], objects


def _images(files: Iterable[Path]) -> Iterator[Header]:
    import pydicom

    for file in files:
        try:
            with _common.parsing(file):
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_NAMES)
                if "Rows" in header and header.get("SeriesInstanceUID"):
                    yield header
        except DataError:  # of a series that is used, reading will say what is wrong
            continue


def _series(uid: str, headers: list[Header]) -> Series:
    first, files = headers[0], [Path(header.filename) for header in headers]
    return Series(
        uid,
        files[0] if len(files) == 1 else _above(files),
        str(first.get("Modality", "")),
        str(first.get("FrameOfReferenceUID", "")),
        frozenset(str(header.get("SOPInstanceUID", "")) for header in headers),
        str(first.get("PatientID") or "") or f"study {first.get('StudyInstanceUID', uid)}",
    )


def _above(files: list[Path]) -> Path:
    """The innermost folder that holds all files."""
    folder = files[0].parent
    while not all(file.is_relative_to(folder) for file in files):
        folder = folder.parent
    return folder
