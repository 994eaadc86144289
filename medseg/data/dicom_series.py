"""DICOM series as SEG and RTSTRUCT refer to them: headers in the order of slices, and the identifiers of all series of a tree.

The one place that asks `io.dicom` for more than volumes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg import io
from medseg.errors import DataError
from medseg.io import _common, dicom
from medseg.io._source import NEEDED, Source
from medseg.io.dicom import Found
from medseg.io.dicom._planes import Plane

Header = Any


@dataclass(frozen=True)
class Series:
    """A series of images in a tree.

    Args:
        uid: its SeriesInstanceUID.
        id: a name that tells nothing about the patient.
        path: of its file, or of the folder that all its files lie in or below.
        modality: `CT`, `MR`, `PT` ...
        frame: its FrameOfReferenceUID.
        instances: SOPInstanceUIDs of its images.
        patient: what tells patients apart: the PatientID, or the study where that is empty. Never to be shown.
    """

    uid: str
    id: str
    path: Path
    modality: str
    frame: str
    instances: frozenset[str]
    patient: str


def check(path: Path) -> None:
    """Refuse a file or folder that is not DICOM.

    Raises:
        DataError: it is not.
    """
    if not io.exists(path) or not dicom.matches(path):
        raise DataError(
            f"'{io.stem(path)}{io.ending(path)}' is no DICOM series, to which alone a DICOM object can refer. Use --format nii.gz."
        )


def source(path: Path) -> Source:
    """The series of a folder or a file, for an object that refers to it.

    Raises:
        DataError: it is no DICOM, or cannot be referred to.
        GeometryError: as `io.read`.
    """
    check(path)
    found = dicom._chosen(path)[0]
    grid = dicom._usable_grid(path, found)
    files = list(dict.fromkeys(plane.file.source for plane in found.stack.planes))
    if len(files) not in (1, grid.shape[2]):
        raise DataError(
            f"{len(files)} files hold {grid.shape[2]} slices of one volume. Write masks with --format nii.gz."
        )
    with _common.parsing(path):
        headers = [_header(file, NEEDED) for file in files]
        if len(headers) > 1 or "NumberOfFrames" not in headers[0]:
            return Source.of(headers, grid)
        planes = found.stack.planes
        return Source.of([_placed(headers[0], planes)], grid, tuple(plane.frame + 1 for plane in planes))


def _placed(header: Header, planes: Sequence[Plane]) -> Header:
    """With a place for each frame where objects look for it, in the header of a file that says it elsewhere, as a SPECT does."""
    if "PerFrameFunctionalGroupsSequence" in header or "ImagePositionPatient" in header:
        return header
    first, frames = planes[0], sorted(planes, key=lambda plane: plane.frame)
    measures = _group(PixelSpacing=first.pixel_mm, SliceThickness=header.get("SliceThickness"))
    orientation = _group(ImageOrientationPatient=first.axes)
    header.SharedFunctionalGroupsSequence = _group(PixelMeasuresSequence=measures, PlaneOrientationSequence=orientation)
    positions = (_group(ImagePositionPatient=plane.position) for plane in frames)
    header.PerFrameFunctionalGroupsSequence = [_group(PlanePositionSequence=position)[0] for position in positions]
    return header


def _group(**values: Any) -> list[Header]:
    """A sequence of one item."""
    from pydicom import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, list(value) if isinstance(value, tuple) else value)
    return [item]


def series_of(path: Path) -> Series:
    """The series of a folder or a file.

    Raises:
        DataError: it is no DICOM, or none that can be read.
    """
    check(path)
    return _series(dicom._chosen(path)[0])


def series_within(root: Path) -> list[Series]:
    """The series of images in and below a folder."""
    return [_series(found) for found in dicom.find(root).volumes if found.stack.planes]


def drawn_objects(path: Path) -> list[Path]:
    """The files that hold structures: this one, or those in and below a folder."""
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names if not name.startswith("."))
    return [file for file in (sorted(below) if path.is_dir() else [path]) if io.holds_structures(file)]


def _header(file: Any, names: Sequence[str]) -> Header:
    import pydicom

    with file.open() as stream:
        return pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(names))


def _series(found: Found) -> Series:
    planes = found.stack.planes
    with _common.parsing(found.path):
        first = _header(found.file.source, ("PatientID", "StudyInstanceUID"))
        patient = str(first.get("PatientID") or "") or f"study {first.get('StudyInstanceUID', found.file.series)}"
    instances = frozenset(plane.file.instance for plane in planes)
    frame = planes[0].frame_of_reference
    return Series(found.file.series, found.id, found.path, found.file.modality, frame, instances, patient)
