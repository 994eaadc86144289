"""The frames of a DICOM Segmentation: which segment each shows and where it lies, as a stack on one regular grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.io import _common, _packed
from medseg.volume import Geometry
from medseg.wording import counted

Header = Any

_SAME = 1e-4  # how far orientations and pixel sizes may differ: text has few digits
_MOST_SLICES = 5000  # beyond it the positions are no stack: nothing is allocated for them


def group(header: Header, frame: Header, name: str) -> Header:
    """One functional group of a frame: its own, or the one that all share (PS3.3 C.7.6.16)."""
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    return (frame.get(name) or shared[0].get(name) or [{}])[0]


def grid(path: Path, header: Header, series: Geometry | None = None) -> tuple[Geometry, list[int]]:
    """The smallest regular grid that all frames lie on, and the slice of each frame.

    Slices that no frame shows are empty: a segmentation need not say so. The way from slice to slice may leave the normal of the
    planes (a tilted gantry). Where nothing says how far apart slices are, it is as in the series, if that has the same planes, or
    else as far as the nearest two frames.

    Raises:
        DataError: a segmentation of microscopy, which has no place in a patient.
        GeometryError: frames without a place, in several orientations, or on no regular stack.
    """
    frames = header.PerFrameFunctionalGroupsSequence
    places = [_place(path, header, frame) for frame in frames]
    planes = np.array([place[:11] for place in places])
    spread = np.ptp(planes[:, 3:], axis=0).max()
    if spread > _SAME:
        raise GeometryError(
            f"'{path}': its {len(frames)} frames differ in orientation or pixel size (by {spread:.4g})."
        )
    pixel_mm, axes = planes[0, 9:11], planes[0, 3:9].reshape(2, 3)
    right, down = axes / np.linalg.norm(axes, axis=1, keepdims=True)  # text of few digits may make them longer
    normal = np.cross(right, down) / np.linalg.norm(np.cross(right, down))
    stated_mm = max(abs(place[11]) for place in places) or _apart_mm(series, normal)
    origin, step, slices = _stack(path, planes[:, :3], normal, stated_mm)
    affine = np.eye(4)
    affine[:3] = np.column_stack((right * pixel_mm[1], down * pixel_mm[0], step, origin))
    shape = (int(header.Columns), int(header.Rows), max(slices) + 1)
    return _common.geometry(path, shape, _common.LPS_TO_RAS @ affine), slices


def _place(path: Path, header: Header, frame: Header) -> list[float]:
    """Position (3), directions of rows and columns (6), pixel size down and right (2), and distance between slices or 0."""
    if "PlanePositionSlideSequence" in frame:
        raise DataError(f"'{path}' is a segmentation of microscopy; expected one of a scan of a patient.")
    measures = group(header, frame, "PixelMeasuresSequence")
    parts = [
        group(header, frame, "PlanePositionSequence").get("ImagePositionPatient"),
        group(header, frame, "PlaneOrientationSequence").get("ImageOrientationPatient"),
        measures.get("PixelSpacing"),
        [measures.get("SpacingBetweenSlices") or 0],
    ]
    if [len(part or ()) for part in parts] != [3, 6, 2, 1]:
        raise GeometryError(f"'{path}' has frames without position, orientation or pixel size: they lie nowhere.")
    return [float(number) for part in parts for number in part]


def _apart_mm(series: Geometry | None, normal: Array) -> float:
    """The distance between slices of a series with planes of some normal (in LPS); 0 where its planes are others."""
    if series is None:
        return 0.0
    i, j, k = (_common.LPS_TO_RAS[:3, :3] @ series.affine[:3, :3]).T
    its = np.cross(i, j) / np.linalg.norm(np.cross(i, j))
    return abs(float(k @ its)) if abs(float(its @ normal)) > 1 - _SAME else 0.0


def _stack(path: Path, positions: Array, normal: Array, stated_mm: float) -> tuple[Array, Array, list[int]]:
    """The place of the first slice, the way from one to the next, and the slice of each frame, counted along the normal."""
    height = (positions - positions[0]) @ normal
    height -= height.min()
    gaps = np.diff(np.unique(np.round(height, 3)))
    if not gaps.size:
        return positions[0], normal * (stated_mm or 1.0), [0] * len(positions)
    for gap in (stated_mm, float(gaps[gaps > _common.ROUNDING_MM].min(initial=np.inf))):
        if not gap or height.max() / gap > _MOST_SLICES:
            continue
        index = np.rint(height / gap).astype(int)
        step, origin = np.polyfit(index, positions, 1)
        off = float(np.linalg.norm(positions - origin - index[:, None] * step, axis=1).max())
        if off <= _common.rounding_mm(gap):
            return origin, step, [int(n) for n in index]
    raise GeometryError(
        f"'{path}': its frames lie {gaps.min():.3f} to {gaps.max():.3f} mm apart, on no regular stack; read it on the "
        "grid of its series."
    )


def checked(path: Path, header: Header) -> Header:
    """The header itself, if what it promises can be in the file.

    Raises:
        DataError: no segments, no frames, or more frames than the file can hold.
    """
    if not header.get("SegmentSequence") or not header.get("PerFrameFunctionalGroupsSequence"):
        raise DataError(f"'{path}' is no complete DICOM Segmentation: it has no segments, or no frames.")
    count, there = int(header.get("NumberOfFrames") or 1), len(header.PerFrameFunctionalGroupsSequence)
    if count != there:
        raise DataError(f"'{path}' has {counted(count, 'frame')}, but describes {there}. Export it again.")
    bits = count * header.Rows * header.Columns * header.BitsAllocated
    packing: _packed.Packing = "deflate" if header.file_meta.TransferSyntaxUID.is_compressed else "raw"
    _packed.check_size(path, bits // 8, packing)
    return header


def numbers(header: Header) -> list[int]:
    """The segment that each frame shows; 0 where its values say so themselves (a label map)."""
    frames = header.PerFrameFunctionalGroupsSequence
    if header.get("SegmentationType") == "LABELMAP":
        return [0] * len(frames)
    found = (group(header, frame, "SegmentIdentificationSequence") for frame in frames)
    return [int(item["ReferencedSegmentNumber"].value) for item in found]


def pixels(path: Path, header: Header) -> Iterator[Array]:
    """The frames `(rows, columns)`, one after the other.

    Raises:
        DataError: compressed, and no decoder is installed.
    """
    import pydicom

    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not pydicom.pixels.get_decoder(syntax).is_available:
        raise DataError(f"'{path}' is compressed ({syntax.name}). Install its decoder: pip install python-gdcm")
    if syntax.is_encapsulated or header.BitsAllocated > 1:
        yield from pydicom.pixels.iter_pixels(path, raw=True)
        return
    # pydicom 3.0 loses bits of frames that begin within a byte; frames follow each other without a gap (PS3.5, 8.1.1).
    stored = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8)
    size = header.Rows * header.Columns
    for first in range(0, size * len(header.PerFrameFunctionalGroupsSequence), size):
        bits = np.unpackbits(stored[first // 8 : (first + size + 7) // 8], bitorder="little")[first % 8 :][:size]
        yield bits.reshape(header.Rows, header.Columns)
