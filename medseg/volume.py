"""The two values that everything else passes on: a grid in space, and an array on a grid.

World coordinates are RAS+ millimetres; arrays are `(C, I, J, K)`; an affine maps indices (i, j, k) to world coordinates of
voxel centres. A 2D image is a volume with K == 1.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from medseg import picture
from medseg.arrays import Array
from medseg.errors import GeometryError
from medseg.wording import counted

Kind = Literal["image", "labels"]
_PARALLEL = 1e-6  # of a cube that axes of length one span: what text and float32 round is less than this apart
# DICOM's codes, by what people write.
MODALITIES = {"CT": "CT", "CBCT": "CT", "MR": "MR", "MRI": "MR", "PET": "PT", "PT": "PT"}


def modality(word: str) -> str:
    """DICOM's code for a modality as people write it; what is not known as it is, in capitals."""
    return MODALITIES.get(word.upper(), word.upper())


def axes_of(axcodes: str) -> list[int]:
    """The axes of RAS that the axes of an orientation run along, whichever way."""
    return ["RLAPSI".index(code) // 2 for code in axcodes]


def diagonal(shape: Sequence[int], axes_mm: Array) -> float:
    """Longest distance in mm between two corners of a grid of any number of axes, voxels included to their edges.

    Args:
        shape: number of voxels along each axis.
        axes_mm: steps from a voxel to its next, one column per axis.
    """
    corners = np.array(list(itertools.product((-1, 1), repeat=len(shape)))) * np.array(shape)
    return float(np.linalg.norm(corners @ axes_mm.T, axis=1).max())


def spans_space(axes: Array) -> bool:
    """Whether three finite axes, one a column, have lengths and are not parallel; lengths may be of nanometres or of metres."""
    lengths = np.linalg.norm(axes, axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(axes / lengths)) > _PARALLEL)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid of voxels in space. Compares, crops and plans without pixels.

    Args:
        shape: number of voxels along i, j and k.
        affine: (4, 4) index -> RAS+ mm, float64; rows need not be orthogonal (a tilted gantry shears the grid).

    Raises:
        GeometryError: an empty shape, or an affine that is not finite and invertible.
    """

    shape: tuple[int, int, int]
    affine: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid needs three positive sizes, got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"an affine must be a finite 4x4 matrix that ends in 0 0 0 1, got {affine.tolist()}")
        if not spans_space(affine[:3, :3]):
            raise GeometryError(
                f"the affine {affine.tolist()} is singular: an axis has no length or two axes are parallel"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres, right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def diagonal_mm(self) -> float:
        """Longest distance between two corners of the grid, voxels included to their edges."""
        return diagonal(self.shape, self.affine[:3, :3])

    @property
    def corners_world(self) -> Array:
        """World coordinates in mm of the eight outermost voxel centres, `(8, 3)`."""
        return self.to_world(list(itertools.product(*((0, n - 1) for n in self.shape))))

    @property
    def shear_deg(self) -> float:
        """Largest departure from right angles between two axes, in degrees."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.degrees(np.arcsin(np.clip(np.abs(np.triu(axes.T @ axes, 1)).max(), 0, 1))))

    @property
    def axcodes(self) -> str:
        """The anatomical direction each axis points to most: `RAS`, `LPS`, ..."""
        from nibabel.orientations import aff2axcodes

        return "".join(code or "?" for code in aff2axcodes(self.affine))

    def spacing_along(self, axcodes: str) -> tuple[float, float, float]:
        """Voxel size in mm along anatomical directions, whatever the order of the axes: `RAS`, and `LPS` alike."""
        own = axes_of(self.axcodes)
        i, j, k = (self.spacing_mm[own.index(axis)] for axis in axes_of(axcodes))
        return i, j, k

    def to_world(self, index_ijk: npt.ArrayLike) -> Array:
        """World coordinates in mm of indices `(..., 3)`, whole or fractional."""
        return np.asarray(index_ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points_world: npt.ArrayLike) -> Array:
        """Fractional indices of world points `(..., 3)` in mm."""
        return (np.asarray(points_world, float) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def apart_mm(self, other: Geometry) -> float:
        """Longest distance in mm between voxel centres of equal index in two grids of one shape."""
        return float(np.linalg.norm(self.corners_world - other.corners_world, axis=1).max())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{v:.4g}</td>' for v in row)}</tr>" for row in self.affine)
        return f"{self!r}<table>{rows}</table>"

    def __reduce__(self) -> Any:
        return Geometry, (self.shape, np.asarray(self.affine))

    def __repr__(self) -> str:
        size, spacing = "x".join(map(str, self.shape)), " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"Geometry({size}, {spacing} mm, {self.axcodes})"


@dataclass(frozen=True, eq=False)
class Volume:
    """An array on a grid.

    Args:
        array: `(C, I, J, K)`, or `(I, J, K)` for one channel; a read-only view is kept. Label maps hold integers in one
            channel, or one channel per label where labels overlap.
        geometry: the grid; its shape is that of the array without channels.
        kind: "image" (may be interpolated) or "labels" (never averaged).
        meta: facts of the file that matter later (`modality`, `stored_dtype`, `notes` ...); never of the patient.

    Raises:
        GeometryError: array and grid have different shapes.
    """

    array: Array
    geometry: Geometry
    kind: Kind = "image"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        array = self.array[None] if self.array.ndim == 3 else self.array
        if array.ndim != 4 or array.shape[1:] != self.geometry.shape:
            raise GeometryError(f"an array of shape {self.array.shape} does not fit a grid of {self.geometry.shape}")
        array = array.view()
        array.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def replace(self, **changes: Any) -> Self:
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)

    def __reduce__(self) -> Any:
        return Volume, (np.asarray(self.array), self.geometry, self.kind, dict(self.meta))

    def __repr__(self) -> str:
        return f"Volume({self.kind}, {counted(self.channels, 'channel')} of {self.array.dtype}, {self.geometry!r})"

    def _repr_html_(self) -> str:
        from nibabel.orientations import apply_orientation, io_orientation

        # shown as on a light box, whatever the order of the axes in memory
        turn = io_orientation(self.geometry.affine)
        shown = apply_orientation(np.asarray(self.array[0]), turn)
        spacing_mm = [self.geometry.spacing_mm[int(axis)] for axis in np.argsort(turn[:, 0])]
        image, mask = (None, shown) if self.kind == "labels" else (shown, None)
        png = picture.png(picture.three_planes(image, mask, spacing_mm))
        return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="three slices"><br>{self!r}'
