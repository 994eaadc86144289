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
    "RescaleType": {"HU", "US", "OD", "Z_EFF", "ED", "MGML"},
}
_TAGS = (*_NUMBERS, *_TERMS, "Manufacturer", "PhotometricInterpretation", "PixelPaddingValue")
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
_UNSCALED = "a CT without rescale slope and intercept: the values are as stored, and may be no Hounsfield units"


def of(found: Found, suv: Suv | None, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The facts of a volume, ready for JSON, as they become its `meta`, with notes on what was odd."""
    plane = found.stack.planes[0]
    with _common.quiet(), _common.guarded():
        data = {element.keyword: element.value for element in _datasets.selected(plane.file.source, _TAGS)[0]}
    numbers = {name: value for name in _NUMBERS if (value := _tags.number(data.get(name))) is not None}
    terms = {name: word for name in _TERMS if (word := _term(data.get(name), _TERMS[name]))}
    padding, (slope, intercept) = _tags.number(data.get("PixelPaddingValue")), plane.rescale or (1.0, 0.0)
    unscaled = found.file.modality == "CT" and plane.rescale is None
    inverse = data.get("PhotometricInterpretation") == "MONOCHROME1"
    facts = {
        "modality": _describe.modality(found),
        "series": found.id.partition("-")[0],
        "series_number": found.file.number,
        "label": found.label,
        "traits": _describe.traits(found.stack),
        "acquisition": {**numbers, **terms, **_maker(data.get("Manufacturer"))},
        "padding": None if padding is None else padding * slope + intercept,
        "unit": "SUVbw" if suv else _unit(found.file.modality, terms, unscaled),
        "notes": (*found.stack.notes, *notes, *([_MONOCHROME1] if inverse else []), *([_UNSCALED] if unscaled else [])),
    }
    return facts | ({"suv": dataclasses.asdict(suv)} if suv else {})


def _unit(modality: str, terms: dict[str, str], unscaled: bool) -> str:
    if modality != "CT" or unscaled:
        return terms.get("Units", "")
    kind = terms.get("RescaleType", "US")  # unspecified, which of a CT means HU
    return "HU" if kind == "US" else kind


def _maker(name: Any) -> dict[str, str]:
    """The first word of the maker's name, if it is a known one: it is text that can be typed."""
    word = next(iter(str(name or "").lower().split()), "")
    return {"Manufacturer": word} if word in _MAKERS else {}


def _term(value: Any, allowed: set[str]) -> str:
    words = _tags.words(value)
    return "/".join(words) if words and set(words) <= allowed else ""
