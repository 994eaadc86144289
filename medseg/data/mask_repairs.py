"""What can be repaired about a mask without guessing: pure functions from a mask to a better one and a line on what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from medseg import geometry as geo
from medseg import picture
from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.labels import Labels
from medseg.labels.declaration import shown
from medseg.volume import Geometry, Volume
from medseg.wording import counted, few

_PICTURE = 255
_EXACT = 0.05  # of a voxel: what programs differ by when they write the same grid


def onto(mask: Volume, image: Geometry) -> tuple[Volume, str]:
    """A mask on the very grid of its image, and what was done; no words where nothing was.

    Voxel for voxel where both have one shape and the mask's header is off by less than a voxel, or says nothing (no form, or the
    identity). By world position where its voxels are those of the image, turned or flipped, with some lacking or too many
    around; and where it is one voxel longer or shorter over the same extent.

    Raises:
        GeometryError: anything else, which only a person can decide; or labels would be lost.
    """
    if mask.geometry == image:
        return mask, ""
    how = geo.difference(image, mask.geometry) or "off by rounding"
    verb = "is" if mask.geometry.shape == image.shape else "has"
    matrix = np.linalg.inv(image.affine) @ mask.geometry.affine
    turned = np.abs(matrix[:3, :3]).argmax(0).tolist() != [0, 1, 2] or (np.diag(matrix) < 0).any()
    if mask.geometry.shape == image.shape and (_placeless(mask) or not turned):
        return mask.replace(geometry=image), _drift(mask, image, how)
    moved = geo.resample_to(mask, image, "nearest")
    before, after = _counts(mask), _counts(moved)
    if _same_voxels(matrix, mask.geometry.shape):
        if before != after:
            lost = sum(before.values()) - sum(after.values())
            raise GeometryError(
                f"label has {how}: {counted(lost, 'labelled voxel lies', 'labelled voxels lie')} outside the image. Is it of another scan?"
            )
        what = f"{'turned' if turned else 'cut or filled with background'} by position"
        return moved, f"label {verb} {how}: {what}; all {counted(sum(after.values()), 'labelled voxel')} kept"
    if not _one_off(mask.geometry, image) or before.keys() != after.keys():
        raise GeometryError(
            f"label {verb} {how}, and not over the same extent. Resample it by hand, if it is of this scan."
        )
    counts = ", ".join(f"{shown(value)}: {before[value]} to {after[value]}" for value in before)
    return moved, f"label has {how}: nearest voxels of its own grid taken (voxels of each label: {counts})"


def _drift(mask: Volume, image: Geometry, how: str) -> str:
    """Why a mask of the image's shape may take its grid.

    Raises:
        GeometryError: its header says that it lies elsewhere.
    """
    off = float(np.abs(image.to_index(mask.geometry.corners_world) - image.to_index(image.corners_world)).max())
    if off >= 1 and not _placeless(mask):
        raise GeometryError(
            f"label is {how}: {off:.3g} voxels, too far for a drift. Which of the two headers is right?"
        )
    why = "its header tells no place" if off >= 1 else f"{off:.2g} voxels"
    return f"label is {how} ({why}): takes the image's grid, voxel for voxel"


def as_values(mask: Volume, allowed: tuple[int, ...] = (1,)) -> tuple[Volume, str]:
    """A mask whose channels are red, green and blue (and opacity) as one of numbers; see `picture.numbered`.

    Raises:
        DataError: it has another number of channels than allowed, and is no picture.
    """
    if mask.channels in allowed:
        return mask, ""
    if mask.channels not in (3, 4) or mask.array.max() < _PICTURE or mask.array.min() < 0:
        raise DataError(
            f"the mask has {mask.channels} channels, expected one. Export each structure as a number of its own."
        )
    pixels = np.moveaxis(mask.array, 0, -1)
    values = picture.numbered(pixels[..., :3])
    if mask.channels == 4:
        values = np.where(pixels[..., 3] > 0, values, 0)
    return mask.replace(array=values[None]), "the mask is a picture of three colours: each is taken for a number"


def table(values: Iterable[int], labels: Labels | None) -> dict[int, int]:
    """What each value of a dataset's masks becomes where all of them are numbers of pictures; nothing where they may stay.

    255 becomes the only label. Colours that nobody declares become 1, 2, ... in their own order, grey levels among them too.

    Args:
        values: of all masks, besides 0.
        labels: the declared ones.
    """
    found = sorted(set(values))
    if labels is not None:
        return (
            {_PICTURE: labels.values[0]} if len(labels.values) == 1 and set(found) <= {_PICTURE, *labels.values} else {}
        )
    if any(value >= picture.COLOURED for value in found):
        return {value: number for number, value in enumerate(found, 1)}
    return {_PICTURE: 1} if _PICTURE in found and set(found) <= {1, _PICTURE} else {}


def recoded(mask: Volume, into: Mapping[int, int]) -> tuple[Volume, str]:
    """A mask with other numbers for its structures, and which."""
    changed = {value: number for value, number in into.items() if value != number and (mask.array == value).any()}
    if not changed:
        return mask, ""
    array = mask.array.copy()
    counts = []
    for value, number in changed.items():
        where = mask.array == value
        array[where] = number
        counts.append(f"{shown(value)} becomes {number} ({counted(int(where.sum()), 'voxel')})")
    return mask.replace(array=array), f"values of a picture: {few(counts, 8)}"


def whole(mask: Volume) -> str:
    """What to say of a mask that was stored as floating point numbers, all of which were whole."""
    stored = mask.meta.get("stored_dtype", "")
    return f"stored as {stored}, though all values are whole: written as integers" if stored.startswith("float") else ""


def _placeless(mask: Volume) -> bool:
    """Whether a header says nothing of where the mask lies: no form, or what arrays get that were given none."""
    codes = mask.meta.get("sform_code"), mask.meta.get("qform_code")
    return codes == (0, 0) or np.array_equal(mask.geometry.affine, np.eye(4))


def _counts(mask: Volume) -> dict[int, int]:
    values, counts = np.unique(mask.array, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value}


def _same_voxels(matrix: Array, shape: tuple[int, ...]) -> bool:
    """Whether indices of a mask become whole indices of its image, by permuting, flipping and shifting alone."""
    whole_steps = np.rint(matrix)
    corners = np.column_stack([np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1), np.ones(8)])
    axes = np.abs(whole_steps[:3, :3])
    permuted = bool((axes.sum(0) == 1).all() and (axes.sum(1) == 1).all())
    return permuted and bool(np.abs(corners @ (matrix - whole_steps).T).max() < _EXACT)


def _one_off(mask: Geometry, image: Geometry) -> bool:
    """Whether two grids, of which one is a voxel longer, have parallel axes and edges less than a voxel apart."""
    if np.abs(np.subtract(mask.shape, image.shape)).max() > 1:
        return False
    edges = [np.array(list(np.ndindex(2, 2, 2))) * np.array(grid.shape) - 0.5 for grid in (mask, image)]
    return bool(np.abs(image.to_index(mask.to_world(edges[0])) - edges[1]).max() < 1)
