"""DICOM objects of labels: written beside the series that they belong to and read back before they stay; read by name."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg import files, io, progress, series
from medseg.errors import DataError, GeometryError
from medseg.geometry import resample_to, same_space
from medseg.io import _codes, dicom_seg, rtstruct
from medseg.io._source import Source
from medseg.labels import Label, Labels
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
FORMATS = {"dicom-seg": dicom_seg.SUFFIXES[0], "rtstruct": rtstruct.SUFFIXES[0]}
_FORMS: tuple[ModuleType, ...] = (dicom_seg, rtstruct)
_KEY = secrets.token_bytes(32)  # of replaced UIDs; nobody keeps it
_OFF_VOXELS = 0.05  # how far a label's centroid may move between writing and reading: headers round positions
_OFF_SHARE = 1e-3  # of its volume


class Manner(NamedTuple):
    """How DICOM objects are written.

    Args:
        deidentify: empty name, numbers, dates and texts of patient and study; UIDs stay, so that the object fits its scan.
        remap_uids: replace the UIDs of study, series, images and frame of reference too: nobody finds the scan by them, nor does
            a viewer. Equal ones stay equal for as long as the program runs.
        codes: a table of the user's own for coded names; see `_codes.table`.
    """

    deidentify: bool = False
    remap_uids: bool = False
    codes: Path | None = None

    def check(self, images: Sequence[Path]) -> None:
        """See that objects can be written so for some scans, and say what that means.

        Raises:
            DataError: one is no DICOM, or the table cannot be used.
        """
        for image in images:
            series.check(image)
        _codes.table(self.codes)
        if self.remap_uids:
            progress.warn(
                "UIDs are replaced: the objects no longer refer to their scans, and no viewer finds one by the other"
            )


def write_structures(
    mask: Volume,
    labels: Labels,
    scan: str | Path,
    path: str | Path,
    *,
    deidentify: bool = False,
    remap_uids: bool = False,
    codes: str | Path | None = None,
) -> tuple[str, ...]:
    """Write labels as a DICOM object that refers to a series; it is read back, and each label's volume and centroid compared.

    Args:
        mask: labels in file values, on any grid in the same space.
        labels: what the values mean.
        scan: folder (or file) of the DICOM series.
        path: ends in `.seg.dcm` (DICOM Segmentation) or `.rtstruct.dcm` (RTSTRUCT).
        deidentify, remap_uids, codes: see `Manner`.

    Returns:
        What was odd about the headers of the series, a line each.

    Raises:
        DataError: no such series or format, a name that DICOM cannot hold, or what was read back is not what was written.

    Example:
        >>> medseg.write_structures(found.mask, found.labels, "series", "liver.seg.dcm")  # doctest: +SKIP
    """
    belongs = series.source(Path(scan))
    belongs = belongs.deidentified() if deidentify else belongs
    belongs = belongs.remapped(_KEY) if remap_uids else belongs
    write(mask, labels, belongs, Path(path), _codes.table(codes))
    return belongs.notes


def write(mask: Volume, labels: Labels, belongs: Source, path: Path, codes: _codes.Table | None = None) -> None:
    """Write labels as a DICOM object, in the format that the name's ending tells, and read them back before the file stays.

    Args:
        mask: labels in file values, on any grid; brought to the grid of the series by position.
        labels: what the values mean.
        belongs: see `series.source`.
        path: ends in `.seg.dcm` or `.rtstruct.dcm`.
        codes: names of structures with their codes; the shipped ones where there are none.

    Raises:
        DataError: a name that DICOM cannot hold, a disk that is full, or what was read back is not what was written.
        GeometryError: the mask lies beside the series.
    """
    form = next((form for form in _FORMS if path.name.lower().endswith(form.SUFFIXES)), None)
    if form is None:
        raise DataError(f"'{path.name}' names no DICOM object. End it in {' or '.join(FORMATS.values())}.")
    grid = belongs.geometry
    placed = mask if same_space(grid, mask.geometry) else resample_to(mask, grid, "nearest")
    if mask.array.any() and not placed.array.any():
        raise GeometryError(f"nothing of the mask for '{path.name}' lies on the series. Does it belong to another one?")
    with files.atomic(path) as temporary:
        form.write(numbered(placed.array, labels), labels, belongs, temporary, codes or _codes.table())
        found = form.read(temporary, on=grid) if form is rtstruct else form.read(temporary)
        _compare(_measures(numbered(mask.array, labels), mask.geometry), found, labels, path)


def numbered(array: Array, labels: Labels) -> Array:
    """A written mask `(C, I, J, K)` as numbers of its labels in order, `(1, I, J, K)`; or 0 and 1, one channel a label, where
    they overlap."""
    if not labels.exclusive:
        return np.stack([labels.mask(array, item) for item in labels]).astype(np.uint8)
    table = np.zeros(max(labels.values) + 1, np.min_scalar_type(len(labels)))
    for number, item in enumerate(labels, 1):
        table[list(item.values)] = number
    known = (array > 0) & (array < len(table))  # voxels to ignore are in no structure
    return table[np.where(known, array, 0)]


def _measures(numbers: Array, grid: Geometry) -> dict[int, tuple[float, Array]]:
    """Volume in ml and centroid in mm of each number (or channel, from 1 on) that there is."""
    found = {}
    for channel, array in enumerate(numbers, 1):
        where = np.nonzero(array)
        values = array[where].astype(int) if len(numbers) == 1 else np.full(len(where[0]), channel)
        counts = np.bincount(values)
        sums = [np.bincount(values, axis) for axis in where]
        for value in np.flatnonzero(counts).tolist():
            centre = grid.to_world([total[value] / counts[value] for total in sums])
            found[value] = (counts[value] * grid.voxel_ml, centre)
    return found


def _compare(wanted: dict[int, tuple[float, Array]], found: Volume, labels: Labels, path: Path) -> None:
    """See that labels came back with their volumes to their places.

    Raises:
        DataError: one did not.
    """
    names = found.meta["labels"].names
    there = {labels.names.index(names[n - 1]) + 1: m for n, m in _measures(found.array, found.geometry).items()}
    tolerance_mm = _OFF_VOXELS * min(found.geometry.spacing_mm)
    for number, (volume_ml, centre) in wanted.items():
        back_ml, back = there.get(number, (0.0, np.full(3, np.nan)))
        off_mm = float(np.linalg.norm(back - centre))
        if not (abs(back_ml - volume_ml) <= _OFF_SHARE * volume_ml and off_mm <= tolerance_mm):
            raise DataError(
                f"'{path.name}' was not kept: '{labels.names[number - 1]}' of {volume_ml:.4g} ml came back with {back_ml:.4g} ml, "
                f"{off_mm:.3g} mm away. Use --format nii.gz, and report this."
            )
    if extra := there.keys() - wanted.keys():
        raise DataError(f"'{path.name}' was not kept: {len(extra)} label(s) came back that were not written.")


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

    volume: Volume
    items: tuple[Label, ...]
    made: str

    @property
    def name(self) -> str:
        """As it is written first."""
        return self.items[0].name

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
    parts: dict[str, list[Label]] = {}
    for item, name in zip(volume.meta["labels"], volume.meta["names"], strict=True):
        parts.setdefault(same_name(name or item.name), []).append(item)
    return {name: _Structure(volume, tuple(items), made) for name, items in parts.items()}


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
    ordered = tuple(structure.items[0].model_copy(update={"values": (n,)}) for n, structure in enumerate(found, 1))
    return Labels(items=ordered, exclusive=exclusive)
