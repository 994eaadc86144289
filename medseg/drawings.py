"""Structures by their names: what one or more DICOM objects (SEG, RTSTRUCT) draw on one series, as one mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg import io
from medseg.errors import DataError
from medseg.io import rtstruct
from medseg.labels import Label, Labels
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]


def read(
    paths: Sequence[Path], grid: Geometry, labels: Labels | None = None, frames: frozenset[str] = frozenset()
) -> Volume:
    """The structures of one or more objects as one mask, by their names.

    Args:
        paths: of SEG and RTSTRUCT objects of one series.
        grid: of the series.
        labels: whose names give structures their values, large letters or small; structures that they do not name are left out,
            and those that are not there are empty. None for the objects' own, in the order of their files.
        frames: FrameOfReferenceUIDs of the series: structures in others are left out. Nothing for all.

    Returns:
        The mask in file values, one channel a label where labels overlap; `meta["labels"]` are those.

    Raises:
        DataError: several drawings of one structure of which none is the latest, or as `io.read`.
        GeometryError: as `io.read`.
    """
    drawn = [_drawn(path, grid, frames) for path in paths]
    found, notes = _latest(drawn, [io.references(path)[0].made for path in paths] if len(paths) > 1 else [""])
    wanted = labels or _together(drawn, found)
    places = {same_name(item.name): n for n, item in enumerate(wanted)}
    array = np.zeros((1 if wanted.exclusive else len(wanted), *grid.shape), np.min_scalar_type(max(wanted.written)))
    for structure in found:
        if (n := places.get(same_name(structure.name))) is not None:
            array[0 if wanted.exclusive else n][structure.where] = wanted.written[n] if wanted.exclusive else 1
    said = dict.fromkeys((*(note for volume in drawn for note in volume.meta["notes"]), *notes))
    meta = {"labels": wanted, "notes": tuple(said), "stored_dtype": array.dtype.name}
    return Volume(array, grid, "labels", meta)


def same_name(name: str) -> str:
    """What names of one structure have in common: letters may be large or small, blanks may be underscores."""
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


def _structures(volume: Volume, made: str) -> dict[str, _Structure]:
    """What one object draws, by name. What has one name there, as each of several lesions may, is parts of one structure."""
    found: dict[str, _Structure] = {}
    for item, written in zip(volume.meta["labels"], volume.meta["names"], strict=True):
        name = written or item.name
        before = found.get(same_name(name), _Structure(name, volume, (), made))
        found[same_name(name)] = before._replace(items=(*before.items, item))
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
        raise DataError(f"{count}, and no date says which is the latest. Keep one of them.")
    return latest, [f"{count}: the latest counts"]


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
