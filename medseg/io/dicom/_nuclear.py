"""Reconstructed tomograms of nuclear medicine (SPECT): one file, of which the first frame alone says where it lies.

The others follow along the normal of the first, whose direction is the sign of SpacingBetweenSlices (PS3.3, C.8.4.11 and C.8.4.15).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medseg.io.dicom import _tags
from medseg.io.dicom._planes import File, Header, Numbers, Plane

_STORAGE = "1.2.840.10008.5.1.4.1.1.20"
_WHAT = "is a reconstructed tomogram"
_UNPLACED = f"{_WHAT} without one position and orientation of its first frame"
_APART = f"{_WHAT} without SpacingBetweenSlices: how far apart they are is not known, nor which way they go"
_SHUFFLED = f"{_WHAT} whose slices are not numbered 1, 2, 3 and so on: which way they go is not known"


def is_tomogram(data: Header) -> bool:
    """Whether all frames are slices of one volume."""
    return data.get("SOPClassUID") == _STORAGE and "RECON TOMO" in _tags.kind(data)


def split(file: File, data: Header, count: int) -> tuple[File, tuple[Plane, ...]]:
    """The frames, each with its place.

    Args:
        file: the file.
        data: its header.
        count: of frames.
    """
    place, step_mm = _place(data), _tags.number(data.get("SpacingBetweenSlices"))
    numbers = _tags.numbers(np.atleast_1d(data.get("SliceVector", ())).tolist(), count)
    if problem := _UNPLACED if place is None else _APART if not step_mm else "":
        return replace(file, problem=problem), ()
    if numbers != tuple(range(1, count + 1)):
        return replace(file, problem=_SHUFFLED), ()
    first = _tags.plane(file, data, _tags.plain(data))
    position, axes = place or ((), ())
    normal = np.cross(axes[:3], axes[3:])
    step = (step_mm or 0) * normal / max(np.linalg.norm(normal), np.finfo(float).tiny)
    return file, tuple(
        replace(first, frame=n, position=tuple((position + n * step).tolist()), axes=axes, order=(first.order[0], n))
        for n in range(count)
    )


def _place(data: Header) -> tuple[Numbers, Numbers] | None:
    """Position and orientation of the first frame, in whatever detector's item, if all that say them agree."""
    said = {
        (_tags.numbers(item.get("ImagePositionPatient"), 3), _tags.numbers(item.get("ImageOrientationPatient"), 6))
        for item in data.get("DetectorInformationSequence") or ()
    } - {(None, None)}
    position, axes = said.pop() if len(said) == 1 else (None, None)
    return (position, axes) if position and axes else None
