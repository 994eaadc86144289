"""From the tags of a file, or of a frame in it, to the record of a plane: the same for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from medseg.io.dicom._planes import TRAITS, File, Header, Numbers, Plane

_THICKNESS = ("SpacingBetweenSlices", "SliceThickness")
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_DIGITS = 4  # of traits: text that was a float has noise behind


class Look(Protocol):
    """The value of a tag: of the file by its keyword, or of a frame by functional group and the keyword in it."""

    def __call__(self, keyword: str, group: str = "", inner: str = "") -> Any:
        """None where nothing is said."""


def plane(file: File, data: Header, look: Look, frame: int = 0) -> Plane:
    """The record of one frame, or of the only one."""
    return Plane(
        file,
        frame,
        (0, 0),
        (int(data.get("Rows")), int(data.get("Columns"))),
        position=numbers(look("ImagePositionPatient", "PlanePositionSequence"), 3),
        axes=numbers(look("ImageOrientationPatient", "PlaneOrientationSequence"), 6),
        pixel_mm=numbers(look("PixelSpacing", "PixelMeasuresSequence"), 2),
        thickness_mm=_thickness(look),
        rescale=_rescale(look),
        study=str(data.get("StudyInstanceUID") or ""),
        frame_of_reference=str(data.get("FrameOfReferenceUID") or ""),
        stack=str(look("StackID", "FrameContentSequence") or ""),
        traits=tuple(_trait(look, *names) for names in _NAMES),
        order=(whole(data.get("InstanceNumber")) or 0, frame),
    )


_NAMES = tuple((trait.keyword, *trait.group) for trait in TRAITS)


def plain(data: Header) -> Look:
    """The tags of a file of one frame."""

    def look(keyword: str, group: str = "", inner: str = "") -> Any:
        if keyword in MADE:
            return MADE[keyword](data)
        return data.get(keyword) if keyword else None

    return look


def kind(data: Header) -> tuple[str, ...]:
    """Image type and complex component: what sort of image it is."""
    component = data.get("ComplexImageComponent")
    return (*words(data.get("ImageType")), *([str(component)] if component else []))


def acquired(data: Header) -> tuple[str, ...]:
    """When a file was taken, as words: they order volumes and tell them apart, and are never shown."""
    joined = "".join(str(data.get(f"Acquisition{part}") or "") for part in ("Date", "Time"))
    return words(data.get("AcquisitionDateTime") or joined)


MADE = {"ImageType": kind, "AcquisitionDateTime": acquired}  # of several tags, by the one that stands for them


def is_tiled(data: Header) -> bool:
    """Whether all slices lie side by side in one frame: Siemens says MOSAIC, United Imaging VFRAME."""
    return not {"MOSAIC", "VFRAME"}.isdisjoint(kind(data))


def words(value: Any) -> tuple[str, ...]:
    """A tag's texts, of which there may be one, several or none."""
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return tuple(map(str, value)) if several else () if value in (None, "") else (str(value),)


def numbers(value: Any, count: int) -> Numbers | None:
    """So many finite numbers, or None."""
    if value is None or isinstance(value, str) or not isinstance(value, Sequence) or len(value) != count:
        return None
    found = tuple(single for part in value if (single := number(part)) is not None)
    return found if len(found) == count else None


def number(value: Any) -> float | None:
    """A finite number, or None where a tag is empty or holds several."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number, or None."""
    found = number(value)
    return None if found is None else int(found)


def _thickness(look: Look) -> tuple[float, str] | None:
    for name in _THICKNESS:
        if (length := number(look(name, "PixelMeasuresSequence"))) and length > 0:
            return length, name
    return None


def _rescale(look: Look) -> tuple[float, float] | None:
    """Slope and intercept; not a number where something else is said, so that the volume is refused."""
    said = [look(name, "PixelValueTransformationSequence") for name in _RESCALE]
    if all(value in (None, "") for value in said):
        return None
    read = (usual if value in (None, "") else number(value) for value, usual in zip(said, (1.0, 0.0), strict=True))
    slope, intercept = (math.nan if value is None else value for value in read)
    return slope, intercept


def _trait(look: Look, keyword: str, group: str, inner: str) -> Any:
    value = look(keyword, group, inner)
    if value is None or value == "" or isinstance(value, tuple):
        return value or None
    if (single := number(value)) is not None:
        return round(single, _DIGITS)
    if isinstance(value, str):
        return value
    parts = [(part, number(part)) for part in value]
    return tuple(str(part) if n is None else round(n, _DIGITS) for part, n in parts) or None
