"""What is kept of a header: numbers and coded terms of the acquisition. Nothing of the patient, and nothing that was typed."""

from __future__ import annotations

import dataclasses
from typing import Any

from medseg.io import _common
from medseg.io.dicom import _datasets, _describe, _tags
from medseg.io.dicom._found import Found
from medseg.io.dicom._suv import Suv

_NUMBERS = (
    "MagneticFieldStrength",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "EchoTrainLength",
    "PixelBandwidth",
    "NumberOfAverages",
    "KVP",
    "XRayTubeCurrent",
    "ExposureTime",
    "Exposure",
    "ReconstructionDiameter",
    "GantryDetectorTilt",
    "SliceThickness",
    "SpacingBetweenSlices",
    "FrameReferenceTime",
    "ActualFrameDuration",
)
_TERMS = {
    "MRAcquisitionType": {"2D", "3D"},
    "ScanningSequence": {"SE", "IR", "GR", "EP", "RM"},
    "PatientPosition": {a + b for a in ("HF", "FF") for b in ("S", "P", "DR", "DL")},
    "Units": {"HU", "BQML", "CNTS", "GML", "PROPCNTS", "NONE"},
    "DecayCorrection": {"NONE", "START", "ADMIN"},
    "RescaleType": {"HU", "US", "OD", "Z_EFF", "ED", "EDW", "MGML", "HU_MOD", "PCT"},  # PS3.3, C.11.1.1.2
}
_PADDING = ("PixelPaddingValue", "PixelRepresentation", "BitsAllocated")
_TAGS = (*_NUMBERS, *_TERMS, *_PADDING, "Manufacturer", "PhotometricInterpretation", "LossyImageCompression")
_MAKERS = (
    "siemens",
    "philips",
    "ge",
    "canon",
    "toshiba",
    "hitachi",
    "fujifilm",
    "uih",
    "bruker",
    "hyperfine",
    "agfa",
    "esaote",
)
_MONOCHROME1 = "MONOCHROME1: meant to be shown with low values bright; the values are kept as stored"
_LOSSY = "lossily compressed, at some time: values are only near to those that were measured"
_UNKNOWN = "a CT whose RescaleType is none that DICOM names: its values may be no Hounsfield units"
_UNSCALED = "a CT without rescale slope and intercept: the values are as stored, and may be no Hounsfield units"


def of(found: Found, suv: Suv | None, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The facts of a volume, ready for JSON, as they become its `meta`, with notes on what was odd."""
    plane = found.stack.planes[0]
    with _common.quiet(), _common.guarded():
        data = {element.keyword: element.value for element in _datasets.selected(plane.file.source, _TAGS)[0]}
    numbers = {name: value for name in _NUMBERS if (value := _tags.number(data.get(name))) is not None}
    terms = {name: word for name in _TERMS if (word := _term(data.get(name), _TERMS[name]))}
    padding, (slope, intercept) = _padding(data), plane.rescale or (1.0, 0.0)
    unit, oddity = _unit(found.file.modality, data, terms, plane.rescale is not None)
    oddity += [_MONOCHROME1] if data.get("PhotometricInterpretation") == "MONOCHROME1" else []
    oddity += [_LOSSY] if data.get("LossyImageCompression") == "01" else []
    facts = {
        "modality": _describe.modality(found),
        "series": found.id.partition("-")[0],
        "series_number": found.file.number,
        "label": found.label,
        "traits": _describe.traits(found.stack),
        "acquisition": {**numbers, **terms, **_maker(data.get("Manufacturer"))},
        "padding": None if padding is None else padding * slope + intercept,
        "unit": "SUVbw" if suv else unit,
        "notes": (*found.stack.notes, *notes, *oddity),
    }
    return facts | ({"suv": dataclasses.asdict(suv)} if suv else {})


def _unit(modality: str, data: dict[str, Any], terms: dict[str, str], scaled: bool) -> tuple[str, list[str]]:
    """The unit of the values, as far as one is known, and a note where that of a CT is not."""
    if modality != "CT":
        return terms.get("Units", ""), []
    if not scaled:
        return "", [_UNSCALED]
    if data.get("RescaleType") and "RescaleType" not in terms:
        return "", [_UNKNOWN]
    kind = terms.get("RescaleType", "US")  # unspecified, which of a CT means HU
    return "HU" if kind == "US" else kind, []


def _padding(data: dict[str, Any]) -> float | None:
    """The stored value of padding: its bits are those of a pixel, whatever sign the header's own type gives them."""
    value, bits = _tags.whole(data.get("PixelPaddingValue")), _tags.whole(data.get("BitsAllocated")) or 16
    if value is None:
        return None
    value %= 1 << bits
    signed = data.get("PixelRepresentation") == 1
    return float(value - (1 << bits) if signed and value >> (bits - 1) else value)


def _maker(name: Any) -> dict[str, str]:
    """The first word of the maker's name, if it is a known one: it is text that can be typed."""
    word = next(iter(str(name or "").lower().split()), "")
    return {"Manufacturer": word} if word in _MAKERS else {}


def _term(value: Any, allowed: set[str]) -> str:
    words = _tags.words(value)
    return "/".join(words) if words and set(words) <= allowed else ""
