"""Cases as their files hold them: image and mask in one space, the values of all masks, and as many at once as memory holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from medseg import geometry as geo
from medseg import io, memory, preprocess, progress, system
from medseg.data import dicom_structures
from medseg.data.cases import Case, Dataset, MaskValues, named
from medseg.errors import DataError, GeometryError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume
from medseg.wording import few

T = TypeVar("T")
MOST_VALUES = 256  # more distinct values are an instance map or an image, not a mask of named structures
_MOST_AT_ONCE = 8  # more wait for the disk
_BYTES = 32  # of each voxel of a channel while it is read and resampled: source, result and what lies between


def read_case(case: Case) -> tuple[Volume, Volume]:
    """Image and mask of a labelled case; a mask that drifted by less than a twentieth of a voxel takes the image's grid.

    Raises:
        DataError: a file cannot be read.
        GeometryError: the mask does not lie on its image.
    """
    image = preprocess.read_image(case.images)
    mask = read_mask(case, image.geometry)
    if wrong := misplaced(image.geometry, mask.geometry):
        raise GeometryError(f"{wrong}. Run 'medseg check DATA --fix OUT' for a repaired copy.")
    return image, mask.replace(geometry=image.geometry)


def read_mask(case: Case, grid: Geometry | None = None, labels: Labels | None = None) -> Volume:
    """The mask of a labelled case.

    Args:
        case: with a label.
        grid: of its image, if it is known already: structures in DICOM objects become voxels on it.
        labels: that give structures their values, in place of the dataset's.

    Raises:
        DataError: a file cannot be read.
    """
    assert case.label is not None
    if case.structures is None:
        return io.read(case.label, "labels")
    wanted = labels or case.structures.labels
    return dicom_structures.read(
        case.structures.files, grid or io.read_geometry(case.images[0]), wanted, case.structures.frames
    )


def misplaced(image: Geometry, mask: Geometry) -> str:
    """How a mask fails to lie on its image, in words with millimetres; empty where it does."""
    verb = "is" if image.shape == mask.shape else "has"
    return "" if geo.same_space(image, mask) else f"label {verb} {geo.difference(image, mask)}"


def each(function: Callable[[Case], T], cases: Sequence[Case], doing: str, channels: int = 1) -> list[T]:
    """Apply a function to each case, in threads and with progress; the results in order.

    Args:
        function: reads a case.
        cases: one or more.
        doing: a word for the progress bar.
        channels: of the images.
    """
    with ThreadPoolExecutor(_at_once(cases, channels)) as pool:
        return list(progress.track(pool.map(function, cases), doing, len(cases)))


def _at_once(cases: Sequence[Case], channels: int) -> int:
    """Number of threads: one per core, while that many of the largest case fit into half of the free memory."""
    wanted = min(system.cores(), _MOST_AT_ONCE, len(cases))
    if wanted < 2:
        return 1
    largest = max(_voxels(case.images[0]) for case in cases)
    return max(1, int(min(wanted, memory.free_bytes() / 2 // (largest * max(1, channels) * _BYTES))))


def _voxels(path: Path) -> int:
    """Voxels of a scan by its header; a folder of slices, whose headers are many, has a byte or more for each."""
    try:
        if path.is_dir():
            return max(1, sum(file.stat().st_size for file in path.rglob("*")))
        return math.prod(io.read_geometry(path).shape)
    except Exception:  # whatever it is, reading the case will name it
        return 1


def label_values(dataset: Dataset) -> dict[str, MaskValues]:
    """The values besides 0 in each channel of the mask of each labelled case, by id: one look at all masks.

    Raises:
        DataError: a mask cannot be read, holds fractions, or more than 256 distinct values; or all masks are empty.
    """
    found = dict(each(_values, dataset.labelled, "reading masks", len(dataset.channels)))
    if not any(values for mask in found.values() for values in mask):
        raise DataError(empty_masks(len(found)))
    return found


def _values(case: Case) -> tuple[str, MaskValues]:
    with named(case):
        return case.id, mask_values(read_mask(case))


def mask_values(mask: Volume) -> MaskValues:
    """The values besides 0 in each channel of a mask.

    Raises:
        DataError: more than 256 distinct values.
    """
    found = [np.unique(channel) for channel in mask.array]
    if (most := max(map(len, found))) > MOST_VALUES:
        raise DataError(
            f"the mask holds {most} distinct values; a mask of structures has at most {MOST_VALUES}. "
            "Is it an image, or a map of numbered instances?"
        )
    return tuple(frozenset(int(v) for v in values if v) for values in found)


def empty_masks(count: int) -> str:
    """What to say of a dataset without a single labelled voxel."""
    return (
        f"no mask holds any label: all voxels of all {count} masks are 0. "
        "Look at one in a viewer, and export the annotations again with a whole number from 1 on for each structure."
    )


def refuse_negative(values: Mapping[str, MaskValues]) -> None:
    """Values below 0 in masks that nobody explained are no structures: "not annotated", or a number that went wrong.

    Args:
        values: of each case, by id.

    Raises:
        DataError: there are some; it names the cases.
    """
    found = {case: [v for v in frozenset[int]().union(*mask) if v < 0] for case, mask in values.items()}
    if bad := [case for case, below in found.items() if below]:
        raise DataError(
            f"masks hold negative values ({few(sorted({v for case in bad for v in found[case]}))}) in {few(bad)}; structures "
            "are numbered from 1 on. Export them again, or declare the value as 'ignore' among the labels of a dataset.json."
        )


def discover_labels(values: Mapping[str, MaskValues]) -> Labels:
    """The structures of a dataset that declares none: one per value in its masks (see `label_values`), named after it.

    Raises:
        DataError: a value is negative, or they are more than 255 in all.
    """
    refuse_negative(values)
    distinct = sorted({value for mask in values.values() for channel in mask for value in channel})
    if len(distinct) >= MOST_VALUES:
        raise DataError(
            f"the masks hold {len(distinct)} distinct values besides 0; at most {MOST_VALUES - 1} are expected"
        )
    return Labels.of(distinct)
