"""What is kept of a header: numbers and coded terms of the acquisition. Nothing of the patient, and nothing that was typed."""

from __future__ import annotations

from typing import Any

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


def of(found: Found, suv: Suv | None, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The facts of a volume, ready for JSON, as they become its `meta`, with notes on what was odd."""
    plane = found.stack.planes[0]
    with _datasets.quiet():
        data, _ = _datasets.selected(plane.file.source, _TAGS)
    numbers = {name: value for name in _NUMBERS if (value := _tags.number(data.get(name))) is not None}
    terms = {name: word for name in _TERMS if (word := _term(data.get(name), _TERMS[name]))}
    colours, maker = data.get("PhotometricInterpretation"), str(data.get("Manufacturer") or "").lower().split()
    padding = _tags.number(data.get("PixelPaddingValue"))
    facts: dict[str, Any] = {
        "modality": _describe.modality(found),
        "series": found.id.partition("-")[0],
        "series_number": found.file.number,
        "label": found.label,
        "traits": _describe.traits(found.stack),
        "acquisition": {**numbers, **terms, "Manufacturer": next((name for name in _MAKERS if name in maker[:1]), "")},
        "padding": None if padding is None else padding * plane.rescale[0] + plane.rescale[1],
        "unit": "SUVbw" if suv else "HU" if found.file.modality == "CT" else terms.get("Units", ""),
    }
    facts["notes"] = (*found.stack.notes, *notes, *([_MONOCHROME1] if colours == "MONOCHROME1" else []))
    if suv:
        facts["suv"] = {"factor": suv.factor, "rule": suv.rule, "tags": suv.tags, "decay_s": suv.decay_s}
    return facts


def _term(value: Any, allowed: set[str]) -> str:
    words = _tags.words(value)
    return "/".join(words) if words and set(words) <= allowed else ""
