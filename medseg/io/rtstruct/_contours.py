"""The contours in a structure set, and what it says of the structures and frames of reference that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from medseg.arrays import Array
from medseg.io._references import References, made, title

Header = Any

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
CONTOUR_DATA = 0x30060050
_FARTHEST_MM = 1e5


class Drawn(NamedTuple):
    """One structure as it was drawn: its contours `(n, 3)` in LPS mm, and how many were set aside.

    Args:
        name: may be empty.
        colour, code: as far as there are any.
        frame: the FrameOfReferenceUID of its contours; empty where nothing says it.
        series: the SeriesInstanceUID of its images, where the object names several; empty where nothing says it.
        contours: closed ones, each once.
        open: points, lines, and contours of fewer than three points.
        twice: copies of closed ones.
    """

    name: str
    colour: tuple[int, int, int] | None
    code: str | None
    frame: str
    series: str
    contours: list[Array]
    open: int
    twice: int


def structures(header: Header) -> list[Drawn]:
    """All that contours may be drawn for, with or without any."""
    described = {int(item.ROINumber): item for item in header.StructureSetROISequence}
    codes = {
        int(item.ReferencedROINumber): item.RTROIIdentificationCodeSequence[0]
        for item in header.get("RTROIObservationsSequence", ())
        if item.get("RTROIIdentificationCodeSequence")
    }
    series, found = _series_of_images(header), []
    for item in header.get("ROIContourSequence", ()):
        number, colour = int(item.ReferencedROINumber), item.get("ROIDisplayColor")
        contours = item.get("ContourSequence") or ()
        closed = [_points(contour) for contour in contours if contour.get("ContourGeometricType") in _CLOSED]
        several = [points for points in closed if len(points) > 2]
        unique = list({points.tobytes(): points for points in several}.values())
        about, code = described.get(number, {}), codes.get(number)
        found.append(
            Drawn(
                str(about.get("ROIName", "")).strip(),
                (int(colour[0]), int(colour[1]), int(colour[2])) if colour else None,
                f"{code.CodingSchemeDesignator}:{code.CodeValue}" if code and "CodeValue" in code else None,
                str(about.get("ReferencedFrameOfReferenceUID", "")),
                next((series[uid] for uid in _images_of(contours) if uid in series), "") if series else "",
                unique,
                len(contours) - len(several),
                len(several) - len(unique),
            )
        )
    return found


def in_frames(drawn: list[Drawn], frames: frozenset[str], header: Header) -> list[Drawn]:
    """The structures in some frames of reference.

    Some exports write a frame beside a structure that stands nowhere else: such structures count where no others are.
    """
    here = [item for item in drawn if not item.frame or item.frame in frames]
    return here or [item for item in drawn if item.frame not in {refers.frame for refers in _images(header)}]


def references(header: Header) -> tuple[References, ...]:
    """The images of each frame of reference in which there are structures."""
    images = _images(header)
    drawn_in = [
        str(item.get("ReferencedFrameOfReferenceUID", "")) for item in header.get("StructureSetROISequence", ())
    ]
    used = [refers for refers in images if refers.frame in drawn_in] or images
    bare = dict.fromkeys(frame for frame in drawn_in if frame and frame not in {refers.frame for refers in images})
    return (*used, *(_nothing(header)._replace(frame=frame) for frame in bare)) or (_nothing(header),)


def _images(header: Header) -> list[References]:
    """The images of each frame of reference that the object names."""
    found = []
    for frame in header.get("ReferencedFrameOfReferenceSequence", ()):
        series = _series_in(frame)
        refers = _nothing(header)._replace(
            series=tuple(filter(None, (str(item.get("SeriesInstanceUID", "")) for item in series))),
            instances=frozenset(uid for item in series for uid in _images_of([item])),
            frame=str(frame.get("FrameOfReferenceUID", "")),
        )
        found.append(refers)
    return found


def _series_of_images(header: Header) -> dict[str, str]:
    """The series of each image that the object names; nothing where that is one series."""
    named = [item for frame in header.get("ReferencedFrameOfReferenceSequence", ()) for item in _series_in(frame)]
    series = {str(item.get("SeriesInstanceUID", "")): item for item in named}
    return {uid: name for name, item in series.items() for uid in _images_of([item])} if len(series) > 1 else {}


def _series_in(frame: Header) -> list[Header]:
    return [
        item
        for study in frame.get("RTReferencedStudySequence", ())
        for item in study.get("RTReferencedSeriesSequence", ())
    ]


def _images_of(items: Iterable[Header]) -> Iterator[str]:
    """The images that series or contours name."""
    images = (image for item in items for image in item.get("ContourImageSequence") or ())
    return (str(image.ReferencedSOPInstanceUID) for image in images if "ReferencedSOPInstanceUID" in image)


def _nothing(header: Header) -> References:
    when = made(header, "StructureSet", "InstanceCreation", "Series")
    return References((), frozenset(), "", str(header.get("SeriesInstanceUID", "")), when, title(header))


def _points(contour: Header) -> Array:
    """Points `(n, 3)`; from the text itself, for a structure may have a million numbers."""
    raw = contour.get_item(CONTOUR_DATA).value if CONTOUR_DATA in contour else None
    text = raw.decode("ascii").strip(" \0").split("\\") if isinstance(raw, bytes) else raw
    points = np.array([float(number) for number in text or () if number != ""]).reshape(-1, 3)
    if not (np.abs(points) < _FARTHEST_MM).all():  # nor not-a-number
        raise ValueError("a contour leaves the room")
    return points
