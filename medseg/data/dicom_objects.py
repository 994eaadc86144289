"""DICOM objects of labels (SEG, RTSTRUCT): written for the series that they refer to, and read back as a check."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from medseg import files, progress
from medseg.arrays import Array
from medseg.data import dicom_series
from medseg.errors import DataError, GeometryError, MedsegError
from medseg.geometry import resample_to, same_space
from medseg.io import _codes, dicom_seg, rtstruct
from medseg.io._source import Source, checked_name
from medseg.labels import Labels
from medseg.volume import Geometry, Volume
from medseg.wording import counted, repeated

FORMATS = {"dicom-seg": dicom_seg.SUFFIXES[0], "rtstruct": rtstruct.SUFFIXES[0]}
_FORMS: tuple[ModuleType, ...] = (dicom_seg, rtstruct)
_KEY = secrets.token_bytes(32)  # of replaced UIDs; nobody keeps it
_OFF_VOXELS = 0.05  # how far a label's centroid may move between writing and reading: headers round positions
_OFF_SHARE = 1e-3  # of its volume


class DicomOptions(NamedTuple):
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
        """Check that objects can be written like this for some scans, and warn where UIDs are replaced.

        Raises:
            DataError: one is no DICOM, or the table cannot be used.
        """
        for image in images:
            dicom_series.check(image)
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
        mask: labels in file values, on the grid of the series, or one of the same voxels in another order.
        labels: what the values mean.
        scan: folder (or file) of the DICOM series.
        path: ends in `.seg.dcm` (DICOM Segmentation) or `.rtstruct.dcm` (RTSTRUCT).
        deidentify, remap_uids, codes: see `DicomOptions`.

    Returns:
        What was odd about the headers of the series, a line each.

    Raises:
        DataError: no such series or format, a name that DICOM cannot hold, or what was read back is not what was written.
        GeometryError: the mask lies beside the series, or on other voxels.

    Example:
        >>> medseg.write_structures(found.mask, found.labels, "series", "liver.seg.dcm")  # doctest: +SKIP
    """
    belongs = dicom_series.source(Path(scan))
    belongs = belongs.deidentified() if deidentify else belongs
    belongs = belongs.remapped(_KEY) if remap_uids else belongs
    write(mask, labels, belongs, Path(path), _codes.table(codes))
    return belongs.notes


def write(mask: Volume, labels: Labels, belongs: Source, path: Path, codes: _codes.Table | None = None) -> None:
    """Write labels as a DICOM object, in the format that the name's ending tells, and read them back before the file stays.

    Args:
        mask: labels in file values, on the grid of the series, or one of the same voxels in another order.
        labels: what the values mean.
        belongs: see `dicom_series.source`.
        path: ends in `.seg.dcm` or `.rtstruct.dcm`.
        codes: names of structures with their codes; the shipped ones where there are none.

    Raises:
        DataError: a name that DICOM cannot hold, a disk that is full, or what was read back is not what was written.
        GeometryError: the mask lies beside the series, or on other voxels.
    """
    form = next((form for form in _FORMS if path.name.lower().endswith(form.SUFFIXES)), None)
    if form is None:
        raise DataError(f"'{path.name}' names no DICOM object. End it in {' or '.join(FORMATS.values())}.")
    grid, names = belongs.geometry, _names(labels)
    placed = mask if same_space(grid, mask.geometry) else resample_to(mask, grid, "nearest")
    if mask.array.any() and not placed.array.any():
        raise GeometryError(f"nothing of the mask for '{path.name}' lies on the series. Does it belong to another one?")
    wanted, numbers = _measures(numbered(mask.array, labels), mask.geometry), numbered(placed.array, labels)
    if placed is not mask and (lost := _difference(wanted, _measures(numbers, grid), names, grid)):
        raise GeometryError(
            f"the mask for '{path.name}' lies on other voxels than the series: by the nearest ones {lost}. Bring it there yourself: "
            "medseg.geometry.resample_to(MASK, medseg.read(SERIES).geometry)."
        )
    with files.atomic(path) as temporary, _called(path.name, temporary):
        form.write(numbers, labels, belongs, temporary, codes or _codes.table())
        found = form.read(temporary, on=grid) if form is rtstruct else form.read(temporary)
        own = [names.index(name) + 1 for name in found.meta["names"]]
        there = {own[n - 1]: measures for n, measures in _measures(found.array, found.geometry).items()}
        if lost := _difference(wanted, there, names, grid):
            raise DataError(f"'{path.name}' was not kept: {lost}. Use --format nii.gz, and report this.")


def _names(labels: Labels) -> list[str]:
    """The names of labels as an object has them.

    Raises:
        DataError: one that DICOM cannot hold, or two that it takes for one.
    """
    names = [checked_name(item) for item in labels]
    if twice := sorted(repeated(names)):
        raise DataError(f"two labels have names that DICOM takes for one: '{twice[0]}'. Rename one of them.")
    return names


@contextlib.contextmanager
def _called(name: str, temporary: Path) -> Iterator[None]:
    """Errors about a file that is being written say what it is to be called, and not the folder."""
    try:
        yield
    except MedsegError as error:
        raise type(error)(files.without_paths(str(error), {temporary: f"'{name}'"})) from error


def numbered(array: Array, labels: Labels) -> Array:
    """A written mask `(C, I, J, K)` as numbers of its labels in order, `(1, I, J, K)`; or 0 and 1, one channel per label, where
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


def _difference(
    wanted: dict[int, tuple[float, Array]], there: dict[int, tuple[float, Array]], names: Sequence[str], grid: Geometry
) -> str:
    """How the volume or the place of a label differs from what is wanted, in words; empty where none does."""
    tolerance_mm = _OFF_VOXELS * min(grid.spacing_mm)
    for number, (volume_ml, centre) in wanted.items():
        back_ml, back = there.get(number, (0.0, np.full(3, np.nan)))
        off_mm = float(np.linalg.norm(back - centre))
        if not (abs(back_ml - volume_ml) <= _OFF_SHARE * volume_ml and off_mm <= tolerance_mm):
            return f"'{names[number - 1]}' of {volume_ml:.4g} ml comes to {back_ml:.4g} ml, {off_mm:.3g} mm away"
    extra = len(there.keys() - wanted.keys())
    return f"{counted(extra, 'label came back but was', 'labels came back but were')} not written" if extra else ""
