"""DICOM Segmentation: labels as DICOM keeps them, frame by frame beside the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.geometry import resample_to
from medseg.io import _colour, _common
from medseg.io._pile import Pile, labels
from medseg.io._references import References, made, title
from medseg.io.dicom_seg import _frames
from medseg.io.dicom_seg._write import write as write
from medseg.volume import Geometry, Kind, Volume
from medseg.wording import counted

Header = Any

SUFFIXES = (".seg.dcm",)
OPTIONS = ("on",)
CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
)  # Segmentation and Label Map Segmentation Storage
THRESHOLD = 0.5  # of probability or occupancy: from it on a voxel belongs to a fractional segment


def matches(path: Path) -> bool:
    """Whether this is a file that holds a DICOM Segmentation."""
    return _common.sop_class(path) in CLASSES


def read(path: Path, kind: Kind = "labels", *, on: Geometry | None = None) -> Volume:
    """Read segments of any type on the grid of their frames, which holds no slice before the first and after the last of them;
    or on that of their series, where each voxel takes the nearest one's segment.

    Voxels have the number of their segment, or segments are channels where they overlap; `meta["labels"]` says which is
    which, `meta["names"]` how the file calls each: there names may come twice. A voxel belongs to a fractional segment from `THRESHOLD` on.

    Args:
        path: of the file.
        kind: taken as "labels" whatever it says.
        on: another grid.

    Raises:
        DataError: damaged, incomplete, of microscopy, or compressed without a decoder here.
        GeometryError: the frames form no regular grid, or all segments lie outside of `on`.
    """
    own = _own(path, on)
    if on is None:
        return own
    notes = (*own.meta["notes"], *_left_out(path, own, on))
    return resample_to(own, on, "nearest").replace(meta={**own.meta, "notes": notes})


def read_geometry(path: Path) -> Geometry:
    """The grid of the frames, from the headers alone."""
    with _common.parsing(path):
        return _frames.grid(path, _header(path))[0]


def references(path: Path) -> tuple[References, ...]:
    """The images that a segmentation says it was drawn on."""
    with _common.parsing(path):
        header = _header(path)
        named = [item for item in header.get("ReferencedSeriesSequence", ()) if "SeriesInstanceUID" in item]
        series = tuple(str(item.SeriesInstanceUID) for item in named)
        images = [image for item in named for image in item.get("ReferencedInstanceSequence", ())]
        instances = frozenset(str(image.ReferencedSOPInstanceUID) for image in images)
        frame, own = (str(header.get(name, "")) for name in ("FrameOfReferenceUID", "SeriesInstanceUID"))
        when = made(header, "Content", "InstanceCreation", "Series")
        return (References(series, instances, frame, own, when, title(header)),)


def _own(path: Path, series: Geometry | None) -> Volume:
    with _common.parsing(path):
        header = _header(path)
        grid, slices = _frames.grid(path, header, series)
        known = {int(item.SegmentNumber): item for item in header.SegmentSequence}
        known.pop(0, None)  # a label map may describe its background
        order = {number: n for n, number in enumerate(sorted(known), 1)}
        pile = Pile(grid.shape, len(order))
        for k, (number, plane) in _placed(path, header, slices):
            if number not in order:
                raise DataError(f"'{path}' shows a segment {number} that it does not describe. Export it again.")
            pile.add(order[number], k, plane)
        about = [_described(known[number]) for number in order]
        found = labels(about, overlap=pile.array.shape[0] > 1)
    meta = {"modality": "SEG", "labels": found, "names": tuple(name for name, *_ in about)}
    frame = str(header.get("FrameOfReferenceUID") or "")
    meta |= {"frames": (_common.digest(frame),) if frame else (), "notes": _notes(header, pile)}
    meta |= {"stored_dtype": pile.array.dtype.name}
    return Volume(pile.array, grid, "labels", meta)


def _header(path: Path) -> Header:
    import pydicom

    return _frames.checked(path, pydicom.dcmread(path, stop_before_pixels=True))


def _placed(path: Path, header: Header, slices: list[int]) -> Iterator[tuple[int, tuple[int, Array]]]:
    """Slice, segment and where it is `(rows, columns)`, for each frame and each segment in it."""
    least = 1
    if header.get("SegmentationType") == "FRACTIONAL":
        least = int(np.ceil(THRESHOLD * int(header.MaximumFractionalValue)))
    segments = _frames.numbers(header)
    for k, segment, frame in zip(slices, segments, _frames.pixels(path, header), strict=True):
        if segment:
            yield k, (segment, frame >= least)
        else:
            yield from ((k, (int(value), frame == value)) for value in np.unique(frame) if value)


def _described(item: Header) -> tuple[str, tuple[int, int, int] | None, str | None]:
    """Name, colour and code of a segment, as far as there are any."""
    colour = item.get("RecommendedDisplayCIELabValue")
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [{}])[0]
    code = f"{kind['CodingSchemeDesignator'].value}:{kind['CodeValue'].value}" if "CodeValue" in kind else None
    return str(item.get("SegmentLabel", "")).strip(), _colour.rgb(colour) if colour else None, code


def _left_out(path: Path, own: Volume, grid: Geometry) -> list[str]:
    """What to say of voxels whose centres lie outside of a grid.

    Raises:
        GeometryError: all do.
    """
    index = grid.to_index(own.geometry.to_world(np.argwhere(own.array.any(axis=0))))
    beyond = int(((index < -0.501) | (index > np.array(grid.shape) - 0.499)).any(axis=1).sum())
    if beyond and beyond == len(index):
        raise GeometryError(
            f"'{path}': all {beyond} voxels lie outside of the scan. Is it the segmentation of another one?"
        )
    return [f"{beyond} of {len(index)} voxels lie outside of the scan and were left out"] if beyond else []


def _notes(header: Header, pile: Pile) -> tuple[str, ...]:
    notes = []
    if header.get("SegmentationType") == "FRACTIONAL":
        notes.append(f"fractional segments: a voxel belongs to one from {THRESHOLD} on")
    if pile.overlap:
        notes.append(f"segments overlap in {counted(pile.overlap, 'voxel')}")
    return tuple(notes)
