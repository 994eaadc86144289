"""What an object of labels says that it was drawn on, and when."""

from __future__ import annotations

from typing import Any, NamedTuple

Header = Any  # pydicom's Dataset


class References(NamedTuple):
    """The images that an object of labels refers to, in one frame of reference; a structure set may have several.

    Args:
        series: SeriesInstanceUIDs.
        instances: SOPInstanceUIDs of images.
        frame: the FrameOfReferenceUID.
        own: the SeriesInstanceUID of the object itself.
        made: date and time of the object, only to see which of two is the later; never to be shown.
        title: what its author called it, a line each, only to choose by; never to be shown.
    """

    series: tuple[str, ...]
    instances: frozenset[str]
    frame: str
    own: str
    made: str
    title: str = ""


def made(header: Header, *kinds: str) -> str:
    """Date and time of an object, of the first kind (`Content`, `Series` ...) that it has; nothing without a date."""
    for kind in kinds:
        if date := str(header.get(f"{kind}Date") or ""):
            return date + str(header.get(f"{kind}Time") or "")
    return ""


def title(header: Header) -> str:
    """Description, label and names that people gave an object, a line each."""
    names = ("SeriesDescription", "ContentLabel", "ContentDescription", "StructureSetLabel", "StructureSetName")
    return "\n".join(str(header.get(name) or "") for name in names)
