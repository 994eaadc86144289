"""Labels as an RTSTRUCT: closed planar contours on the planes of the source's slices."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.io import _codes, _common
from medseg.io._source import DESCRIPTION, MAKER, PATIENT, STUDY, Source, checked_name
from medseg.io.rtstruct._contours import CONTOUR_DATA
from medseg.io.rtstruct._outline import outlines
from medseg.labels import Label, Labels

Header = Any

CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, by which a structure set names a study


def write(numbers: Array, labels: Labels, source: Source, path: Path, codes: _codes.Table) -> None:
    """Write labels on the grid of their series as contours along the edges of pixels; see `_outline.outlines`.

    Args:
        numbers: of the labels in their order from 1 on, `(1, I, J, K)`; or `(labels, I, J, K)` of 0 and 1.
        labels: what they mean.
        source: the series, on whose grid they lie.
        path: of the file.
        codes: see `_codes.table`.

    Raises:
        DataError: a name that DICOM cannot hold.
    """
    with _common.writing(path):
        written = _described(source)
        written.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
        written.StructureSetROISequence = [_roi(n, item, source) for n, item in enumerate(labels, 1)]
        written.RTROIObservationsSequence = [_observation(n, item, codes) for n, item in enumerate(labels, 1)]
        written.ROIContourSequence = [
            _contours(n, item, numbers[0] == n if len(numbers) == 1 else numbers[n - 1] > 0, source)
            for n, item in enumerate(labels, 1)
        ]
        written.save_as(path, enforce_file_format=True)


def _described(source: Source) -> Header:
    """Patient, study, series, equipment and approval."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, generate_uid

    written = Dataset()
    written.file_meta = FileMetaDataset()
    written.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian  # an explicit one has no room for long contours (PS3.5, 6.2.2)
    )
    written.SpecificCharacterSet = "ISO_IR 192"
    written.SOPClassUID, written.SOPInstanceUID = CLASS, generate_uid()
    for name in (*PATIENT, *STUDY, "StudyInstanceUID"):
        setattr(written, name, source.first.get(name, ""))
    source.mark(written)
    written.Modality, written.SeriesInstanceUID, written.SeriesNumber = "RTSTRUCT", generate_uid(), source.series_number
    written.SeriesDescription, written.OperatorsName = MAKER, ""
    written.Manufacturer = written.ManufacturerModelName = MAKER
    written.SoftwareVersions = version("medseg")
    now = datetime.datetime.now()
    written.StructureSetLabel = MAKER
    written.StructureSetDescription = DESCRIPTION
    written.StructureSetDate = written.InstanceCreationDate = now.strftime("%Y%m%d")
    written.StructureSetTime = written.InstanceCreationTime = now.strftime("%H%M%S")
    written.ApprovalStatus = "UNAPPROVED"
    return written


def _item(**values: Any) -> Header:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _image(header: Header, frame: int | None = None) -> Header:
    """A reference to an image, or to one frame of it (PS3.3, table 10-3)."""
    image = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if frame is not None:
        image.ReferencedFrameNumber = frame
    return image


def _frame_of_reference(source: Source) -> Header:
    first = source.first
    images = [_image(header) for header in source.headers]
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(number: int, item: Label, source: Source) -> Header:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.first.FrameOfReferenceUID,
        ROIName=checked_name(item),
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _observation(number: int, item: Label, codes: _codes.Table) -> Header:
    kind = _codes.coded(item, codes).kind
    code = _item(CodeValue=kind.value, CodingSchemeDesignator=kind.scheme, CodeMeaning=kind.meaning)
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType="",
        ROIInterpreter="",
        RTROIIdentificationCodeSequence=[code],
    )


def _contours(number: int, item: Label, mask: Array, source: Source) -> Header:
    drawn = _item(ReferencedROINumber=number, ROIDisplayColor=list(item.colour))
    if contours := [_contour(n, *found) for n, found in enumerate(_placed(mask, source), 1)]:
        drawn.ContourSequence = contours
    return drawn


def _placed(mask: Array, source: Source) -> Iterator[tuple[Header, Array]]:
    """What names its slice, and the points `(n, 3)` in LPS mm, of each contour of a mask `(I, J, K)`."""
    steps_mm = np.array(source.directions_lps) * np.array(source.geometry.spacing_mm[:2])[:, None]
    positions = source.positions_lps  # once: it looks at all slices, and noise has thousands of contours
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        header = source.headers[k if len(source.headers) > 1 else 0]
        image = _image(header, source.frames[k] if source.frames else None)
        for corners in outlines(mask[:, :, k].T):
            yield image, positions[k] + corners @ steps_mm


def _contour(number: int, image: Header, points_lps: Array) -> Header:
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    contour = _item(ContourImageSequence=[image], ContourGeometricType="CLOSED_PLANAR", ContourNumber=number)
    contour.NumberOfContourPoints = len(points_lps)
    text = "\\".join(f"{number:.4f}" for number in points_lps.ravel()).encode()
    text += b" " * (len(text) % 2)
    # As the bytes that go into the file: a structure may have a million numbers, each of which would become an object.
    contour[CONTOUR_DATA] = RawDataElement(Tag(CONTOUR_DATA), "DS", len(text), text, 0, True, True)
    return contour
