"""The header of one file: what it is, why it cannot be used, and the planes in it."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from medseg.errors import DataError
from medseg.io import _common
from medseg.io.dicom import _datasets, _frames, _mosaic, _nuclear, _tags
from medseg.io.dicom._planes import File, Header, Plane
from medseg.io.dicom._sources import START, SUFFIXES, Source, looks_like_dicom

Read = tuple[File, tuple[Plane, ...]]

CUT_OFF = "is cut off: only the beginning of an image is there"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURE = _STORAGE + "7"
# How the SOP classes begin that hold no image of a volume, in words (PS3.4, table B.5-1). The first that fits counts.
_ASIDE = {
    "1.2.840.10008.1.3.10": "directory",
    _STORAGE + "11.": "presentation state",
    _STORAGE + "104.": "document",
    _STORAGE + "4.2": "spectroscopy",
    _STORAGE + "66.4": "segmentation",
    _STORAGE + "66.5": "segmentation",
    _STORAGE + "66.7": "segmentation",
    _STORAGE + "66.": "registration",
    _STORAGE + "66": "raw data",
    _STORAGE + "67": "value mapping",
    _STORAGE + "68.": "surface",
    _STORAGE + "200.": "procedure protocol",
    _STORAGE + "88.59": "key object selection",
    _STORAGE + "88.": "report",
    _STORAGE + "9.": "waveform",
    _STORAGE + "481.2": "dose",
    _STORAGE + "481.3": "structure set",
    _STORAGE + "481.": "radiotherapy plan, record or projection",
}


@functools.lru_cache(maxsize=1 << 15)
def read(source: Source) -> Read | None:
    """The records of a file, or None where it is no DICOM."""
    if source.is_gone:
        return File(source, problem="is not there, though the DICOMDIR names it"), ()
    try:
        with _common.guarded():
            with source.open() as stream:
                start = stream.read(START)
            if looks_like_dicom(start):
                return _records(source, _datasets.of_plain_image(source) or _datasets.header(source))
    except DataError as error:
        return File(source, problem=str(error)), ()
    name = Path(source.member or source.path)
    if start.startswith(b"PK\3\4") and _common.has_suffix(name, (".zip",)):
        return File(
            source, aside="zip within a zip, to be unpacked" if source.member else "zip, to be named by itself"
        ), ()
    named = _common.has_suffix(name, SUFFIXES)
    return (File(source, problem="is no DICOM file, or its beginning is damaged"), ()) if named else None


def _records(source: Source, data: Header) -> Read:
    file = File(
        source,
        instance=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        modality=str(data.get("Modality") or ""),
        number=_tags.whole(data.get("SeriesNumber")),
        description=str(data.get("SeriesDescription") or ""),
        aside=_aside(data),
    )
    if file.aside:
        return file, ()
    if problem := _problem(data):
        return _refused(file, problem)
    frames = _tags.whole(data.get("NumberOfFrames")) or 1
    if "PerFrameFunctionalGroupsSequence" in data:
        return _frames.split(file, data, frames)
    if _nuclear.is_tomogram(data):
        return _nuclear.split(file, data, frames)
    if frames > 1:
        return _refused(file, f"holds {frames} frames that do not say where they lie")
    only = _tags.plane(file, data, _tags.plain(data))
    return _mosaic.split(file, data, only) if _tags.is_tiled(data) else (file, (only,))


def _refused(file: File, problem: str) -> Read:
    return replace(file, problem=problem), ()


def _aside(data: Header) -> str:
    """What a file is that holds no image of a volume; empty where it does."""
    sop_class = _sop_class(data)
    if word := next((word for start, word in _ASIDE.items() if sop_class.startswith(start)), ""):
        return word
    if "Rows" not in data:
        return "" if not sop_class or sop_class.startswith(_STORAGE) else "object without an image"
    if "LOCALIZER" in _tags.kind(data):
        return "localizer"
    placed = "ImagePositionPatient" in data or "PerFrameFunctionalGroupsSequence" in data
    colour = "" if data.get("SamplesPerPixel", 1) == 1 else "colour "
    return f"{colour}picture without a place in the patient" if sop_class.startswith(_CAPTURE) and not placed else ""


def _sop_class(data: Header) -> str:
    return str(data.get("SOPClassUID") or getattr(data, "file_meta", {}).get("MediaStorageSOPClassUID") or "")


def _problem(data: Header) -> str:
    """Why an image cannot be a part of a volume of values; empty where it can."""
    if not (data.get("Rows") and data.get("Columns")):
        return CUT_OFF
    colours = str(data.get("PhotometricInterpretation") or "")
    if data.get("SamplesPerPixel", 1) != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        return f"holds colours ({colours or 'unnamed'}), a picture for the eye; expected one measured value a voxel"
    return "has a lookup table for its values, which is not understood" if "ModalityLUTSequence" in data else ""
