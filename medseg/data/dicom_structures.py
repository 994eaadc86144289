"""Structures by their names: what one or more DICOM objects (SEG, RTSTRUCT) draw on one series, as one mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medseg import io
from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.io import rtstruct
from medseg.labels import Label, Labels
from medseg.volume import Geometry, Volume

_CHOOSE = "Choose others as DATA#NAME, by a part of their files' names or descriptions, or name them in a CSV."


def read(
    paths: Sequence[Path], grid: Geometry, labels: Labels | None = None, frames: frozenset[str] = frozenset()
) -> Volume:
    """The structures of one or more objects as one mask, by their names.

    Args:
        paths: of SEG and RTSTRUCT objects of one series.
        grid: of the series.
        labels: whose names give structures their values, see `same_name`; structures that they do not name are left out,
            and those that are not there are empty. None for the objects' own, in the order of their files.
        frames: FrameOfReferenceUIDs of the series: structures in others are left out. Nothing where there is one.

    Returns:
        The mask in file values, one channel per label where labels overlap; `meta["labels"]` are those, `meta["left_out"]` the
        names of structures that run across the slices.

    Raises:
        DataError: several drawings of one structure of which none is the latest, several frames of reference of which nobody
            says which is the grid's, or as `io.read`.
        GeometryError: a structure that `labels` name runs across the slices, or as `io.read`.
    """
    drawn = [_drawn(path, grid, frames) for path in paths]
    if not frames and (several := len({frame for volume in drawn for frame in volume.meta["frames"]})) > 1:
        raise DataError(
            f"'{paths[0]}' has structures in {several} frames of reference, of which none is known to be that of the scan. Give "
            "the scan as the DICOM series that they were drawn on."
        )
    found, notes = _latest(drawn, [io.references(path)[0].made for path in paths] if len(paths) > 1 else [""])
    left_out = _left_out(drawn, found)
    if labels and (lost := unplaced(left_out, labels)):
        raise GeometryError(f"'{paths[0]}': {lost}")
    wanted = labels or _together(drawn, found)
    places = {same_name(item.name): n for n, item in enumerate(wanted)}
    array = np.zeros((1 if wanted.exclusive else len(wanted), *grid.shape), np.min_scalar_type(max(wanted.written)))
    for structure in found:
        if (n := places.get(same_name(structure.name))) is not None:
            array[0 if wanted.exclusive else n][structure.where] = wanted.written[n] if wanted.exclusive else 1
    said = dict.fromkeys((*(note for volume in drawn for note in volume.meta["notes"]), *notes))
    meta = {"labels": wanted, "left_out": left_out, "notes": tuple(said), "stored_dtype": array.dtype.name}
    return Volume(array, grid, "labels", meta)


def unplaced(left_out: Sequence[str], labels: Labels) -> str:
    """Why a mask without some of the drawn structures cannot be used: they would count as absent. Empty if it can."""
    names = {same_name(name) for name in labels.names}
    lost = ", ".join(f"'{name}'" for name in left_out if same_name(name) in names)
    words = (
        "was drawn across the slices of the scan, on planes of another direction. Draw it on its slices, or rename it."
    )
    return f"{lost} {words}" if lost else ""


def same_name(name: str) -> str:
    """A name as it is compared with others: case is ignored, and underscores are blanks."""
    return " ".join(name.casefold().replace("_", " ").split())


class _Structure(NamedTuple):
    """What one object draws under one name, in one or more parts, and date and time of the object."""

    name: str
    volume: Volume
    items: tuple[Label, ...]
    made: str

    @property
    def where(self) -> Array:
        """Its voxels, as booleans `(I, J, K)`."""
        found: Labels = self.volume.meta["labels"]
        return np.logical_or.reduce([found.mask(self.volume.array, item) for item in self.items])


def _drawn(path: Path, grid: Geometry, frames: frozenset[str]) -> Volume:
    several = {"frames": frames or None} if rtstruct.matches(path) else {}  # a SEG has one frame of reference
    return io.read(path, "labels", on=grid, **several)


def _left_out(drawn: Sequence[Volume], found: Sequence[_Structure]) -> tuple[str, ...]:
    """Names of structures that are on the grid in no object."""
    here = {same_name(structure.name) for structure in found}
    names = (name for volume in drawn for name in volume.meta.get("left_out", ()))
    return tuple(name for name in names if same_name(name) not in here)


def _structures(volume: Volume, made: str) -> dict[str, _Structure]:
    """What one object draws, by name. What has one name there, as each of several lesions may, is parts of one structure; it is
    left out where one of them was."""
    found: dict[str, _Structure] = {}
    for item, written in zip(volume.meta["labels"], volume.meta["names"], strict=True):
        name = written or item.name
        before = found.get(same_name(name), _Structure(name, volume, (), made))
        found[same_name(name)] = before._replace(items=(*before.items, item))
    for name in volume.meta.get("left_out", ()):
        found.pop(same_name(name), None)
    return found


def _latest(drawn: Sequence[Volume], made: Sequence[str]) -> tuple[list[_Structure], list[str]]:
    """The structures of all objects, one of each name, and what to say; see `_chosen`."""
    named: dict[str, list[_Structure]] = {}
    for volume, when in zip(drawn, made, strict=True):
        for name, structure in _structures(volume, when).items():
            named.setdefault(name, []).append(structure)
    found, notes = [], []
    for drawings in named.values():
        structure, said = _chosen(drawings) if len(drawings) > 1 else (drawings[0], [])
        found.append(structure)
        notes += said
        if (parts := len(structure.items)) > 1:
            notes.append(f"'{structure.name}' names {parts} structures of one object, which are taken as one")
    return found, notes


def _chosen(drawings: Sequence[_Structure]) -> tuple[_Structure, list[str]]:
    """The one of several drawings of a structure that counts; empty ones do not where others are not.

    Raises:
        DataError: they differ, and no one is the latest.
    """
    filled = [drawing for drawing in drawings if drawing.where.any()] or drawings
    latest = max(filled, key=lambda drawing: drawing.made)
    if all(np.array_equal(drawing.where, latest.where) for drawing in filled):
        return latest, []
    count = f"'{latest.name}' is drawn {len(filled)} times for one series, in ways that differ"
    if sum(drawing.made == latest.made for drawing in filled) > 1:
        raise DataError(f"{count}, and no date says which is the latest. {_CHOOSE}")
    return latest, [f"{count}: the latest counts. {_CHOOSE}"]


def _together(drawn: Sequence[Volume], found: Sequence[_Structure]) -> Labels:
    """Labels of several objects in their order; they overlap where two of them share a voxel."""
    if len(drawn) == 1 and len(found) == len(drawn[0].meta["labels"]):
        exclusive = drawn[0].meta["labels"].exclusive
    else:
        exclusive = not np.any(sum(structure.where.astype(np.uint16) for structure in found) > 1)
    ordered = [
        structure.items[0].model_copy(update={"name": structure.name, "values": (n,)})
        for n, structure in enumerate(found, 1)
    ]
    return Labels(items=tuple(ordered), exclusive=exclusive)
