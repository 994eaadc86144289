"""The series that an object of labels belongs to: whose it is, where its slices lie, and what the object takes over from it."""

from __future__ import annotations

import copy
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError
from medseg.io._common import LPS_TO_RAS
from medseg.labels import Label
from medseg.volume import Geometry

Header = Any  # pydicom's Dataset; pydicom is imported when an object is written

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName")
MAKER, DESCRIPTION = "medseg", "segmentation by medseg, for research only"  # in what is written
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "SOPClassUID")
_PLACE = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_FRAMES = (
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)
NEEDED = ("Modality", "SeriesNumber", *PATIENT, *STUDY, *UIDS, *_PLACE, *_FRAMES)
_MARKS = ("PatientIdentityRemoved", "DeidentificationMethod")
_SEXES = ("M", "F", "O", "", None)  # PS3.3, C.7.1.1: others are letters of the right kind, and no sex
_NEVER_EMPTY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True)
class Source:
    """A series of images.

    Args:
        headers: one a slice, in the order of k; or the one of a file that holds all slices. No more than `NEEDED`.
        geometry: of the series.
        notes: what was odd about the headers; never a value.
        frames: of each slice the number, from 1 on, of its frame in that one file; nothing where each has a file.
    """

    headers: tuple[Header, ...]
    geometry: Geometry
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()

    @classmethod
    def of(cls, headers: Sequence[Header], geometry: Geometry, frames: tuple[int, ...] = ()) -> Self:
        """Of headers as they were read. Text that is no valid DICOM is left out, for what is written has to be.

        Raises:
            DataError: a series without the identifiers that an object refers to.
        """
        invalid: set[str] = set()
        kept = tuple(_sharing(_kept(header, invalid)) for header in headers)
        if missing := [name for name in _NEVER_EMPTY if not all(header.get(name) for header in kept)]:
            raise DataError(
                f"the series has no {', '.join(missing)}: nothing can refer to it. Write masks with --format nii.gz."
            )
        notes = [f"the series' {name} is no valid DICOM and was left empty" for name in sorted(invalid)]
        if not kept[0].get("FrameOfReferenceUID"):
            notes.append("the series has no frame of reference; the object has one of its own")
            kept = tuple(_changed(header, FrameOfReferenceUID=_new_uid(kept[0].SeriesInstanceUID)) for header in kept)
        found = cls(kept, geometry, tuple(notes), frames)
        thick = [
            header if header.get("SliceThickness") else _changed(header, SliceThickness=found.gap_mm) for header in kept
        ]
        return replace(found, headers=tuple(thick))

    @property
    def first(self) -> Header:
        """The header that says whose the series is."""
        return self.headers[0]

    @property
    def series_number(self) -> int:
        """Of an object beside the series, by custom a thousand after it; never below one."""
        return max(1, 1000 + int(self.first.get("SeriesNumber") or 0))

    def mark(self, written: Header) -> None:
        """Say in an object that the patient was taken out of it, if so."""
        for name in _MARKS:
            if name in self.first:
                setattr(written, name, self.first.get(name))

    @property
    def positions_lps(self) -> Array:
        """Where the first voxel of each slice lies, `(K, 3)`: as its own header says, which may round otherwise than the grid."""
        if len(self.headers) == self.geometry.shape[2] and "ImagePositionPatient" in self.first:
            return np.array([header.ImagePositionPatient for header in self.headers], float)
        index = np.zeros((self.geometry.shape[2], 3))
        index[:, 2] = np.arange(len(index))
        return self.geometry.to_world(index) @ LPS_TO_RAS[:3, :3]

    @property
    def directions_lps(self) -> tuple[Array, Array]:
        """The directions of i (along a row of pixels) and of j, of length one."""
        axes = LPS_TO_RAS[:3, :3] @ self.geometry.affine[:3, :2] / self.geometry.spacing_mm[:2]
        return axes[:, 0], axes[:, 1]

    @property
    def gap_mm(self) -> float:
        """Between the planes of two slices."""
        return abs(float(np.cross(*self.directions_lps) @ (LPS_TO_RAS[:3, :3] @ self.geometry.affine[:3, 2])))

    def deidentified(self) -> Self:
        """Without name, numbers, dates and texts of the patient and the study; the UIDs stay, so that it still fits the scan."""
        empty = dict.fromkeys((*PATIENT, *STUDY), "")
        marked = dict(zip(_MARKS, ("YES", "medseg: patient and study text emptied"), strict=True))
        return replace(self, headers=tuple(_changed(header, **empty, **marked) for header in self.headers))

    def remapped(self, key: bytes) -> Self:
        """With other UIDs in place of the series' own: equal ones stay equal under one key, and nobody finds the scan by them."""

        def replaced(_: Header, element: Any) -> None:
            if element.VR == "UI" and not element.keyword.endswith("ClassUID") and isinstance(element.value, str):
                element.value = _keyed(key, element.value)

        headers = copy.deepcopy(self.headers)
        for header in headers:
            header.walk(replaced)
        return replace(self, headers=headers)


def checked_name(item: Label) -> str:
    """The name of a label as an object can hold it: blanks at its ends mean nothing in DICOM.

    Raises:
        DataError: it cannot.
    """
    name = item.name.strip()
    if not 0 < len(name) <= 64 or "\\" in name or not name.isprintable():
        raise DataError(f"the label '{item.name}' is no name that DICOM can hold: 1 to 64 letters, and no backslash")
    return name


def _kept(header: Header, invalid: set[str]) -> Header:
    """What an object takes over from one header; names of what is no valid DICOM are added to `invalid`."""
    import pydicom
    from pydicom.dataelem import DataElement

    kept = pydicom.Dataset()
    for name in (name for name in NEEDED if name in header):
        element = header[name]
        try:
            value = _plain(element)
            valid = DataElement(element.tag, element.VR, value, validation_mode=pydicom.config.RAISE)
        except ValueError:
            invalid.add(name)
            continue
        if name == "PatientSex" and value not in _SEXES:
            invalid.add(name)
        else:
            kept.add(valid)
    for name in (*PATIENT, *STUDY):
        if name not in kept:
            setattr(kept, name, "")
    return kept


def _sharing(header: Header) -> Header:
    """With what all frames have in common in the shared groups, where highdicom looks for it: some files repeat it in each frame."""
    if not (frames := header.get("PerFrameFunctionalGroupsSequence")):
        return header
    shared = copy.deepcopy(header.get("SharedFunctionalGroupsSequence") or [type(header)()])
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared[0] and name in frames[0]:
            setattr(shared[0], name, frames[0].get(name))
    return _changed(header, SharedFunctionalGroupsSequence=shared)


def _plain(element: Any) -> Any:
    """A value as text is written: numbers in sixteen letters, which some scanners exceed."""
    from pydicom.valuerep import format_number_as_ds

    if element.VR == "DS" and element.value is not None:
        return [format_number_as_ds(float(number)) for number in np.atleast_1d(element.value)]
    return element.value if element.VR in ("SQ", "IS", "US") or element.value is None else str(element.value)


def _changed(header: Header, **values: Any) -> Header:
    changed = copy.deepcopy(header)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def _new_uid(*made_of: str) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=list(made_of)))


def _keyed(key: bytes, uid: str) -> str:
    return _new_uid(hmac.new(key, str(uid).encode(), hashlib.sha256).hexdigest())
