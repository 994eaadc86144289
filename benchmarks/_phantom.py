"""What is known at every place: five ellipsoids as labels, and a scan made of waves, for results on any grid to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import Geometry
from medseg.geometry import with_spacing

Array = npt.NDArray[Any]
Result = tuple[Array, Array]  # values (I, J, K), and the affine that says where they lie
LABELS = range(1, 6)
# Centres and half axes as shares of the volume, in order: a later label lies over an earlier one.
_ELLIPSOIDS = (
    ((0.5, 0.5, 0.5), (0.38, 0.35, 0.38)),
    ((0.35, 0.38, 0.58), (0.15, 0.18, 0.12)),
    ((0.68, 0.62, 0.4), (0.15, 0.12, 0.18)),
    ((0.28, 0.72, 0.7), (0.1, 0.12, 0.1)),
    ((0.74, 0.28, 0.3), (0.12, 0.08, 0.14)),
)
_WAVES_MM = (25.0, 30.0, 20.0)  # lengths along i, j and k
_AMPLITUDE = 400


def ellipsoids(places: Sequence[Array], shift: float = 0.0) -> Array:
    """Labels 1 to 5 in uint8.

    Args:
        places: where voxels lie along each axis, as shares of the volume.
        shift: of all ellipsoids, as a share of the volume; they grow with it.
    """
    found = np.zeros([len(along) for along in places], np.uint8)
    for label, (centre, half) in zip(LABELS, _ELLIPSOIDS, strict=True):
        moved = np.array(centre) + shift * np.array([1, -1, 0.5])
        i, j, k = (((along - c) / r) ** 2 for along, c, r in zip(places, moved, half, strict=True))
        found[i[:, None, None] + j[:, None] + k < 1 + 4 * shift] = label
    return found


def waves(places_mm: Sequence[Array]) -> Array:
    """A product of cosines of the place, of amplitude 400, in float32."""
    i, j, k = (np.cos(2 * np.pi * along / wave) for along, wave in zip(places_mm, _WAVES_MM, strict=True))
    return np.asarray(_AMPLITUDE * i[:, None, None] * j[:, None] * k, np.float32)


def places_mm(shape: Sequence[int], affine: Array) -> list[Array]:
    """Where voxels lie along each axis of a grid whose axes are those of the world."""
    return [affine[axis, 3] + affine[axis, axis] * np.arange(size) for axis, size in enumerate(shape)]


@dataclass(frozen=True)
class Scan:
    """What is resampled, and what is right.

    Args:
        grid: of the scan; its axes are those of the world, from 0.
        to_mm: spacing wanted.
    """

    grid: Geometry
    to_mm: float

    @property
    def target(self) -> Geometry:
        """The grid that medseg makes of it."""
        return with_spacing(self.grid, (self.to_mm,) * 3)

    def image(self) -> Array:
        """The scan in int16."""
        return waves(places_mm(self.grid.shape, self.grid.affine)).round().astype(np.int16)

    def labels(self) -> Array:
        """Its labels in uint8."""
        return self._labels(places_mm(self.grid.shape, self.grid.affine))

    def image_error(self, result: Result) -> dict[str, float]:
        """Root mean square of the difference to the waves."""
        values, places = self._inner(*result)
        return {"RMS error": float(np.sqrt(np.mean((values - waves(places)) ** 2)))}

    def labels_error(self, result: Result) -> dict[str, float]:
        """Mean Dice with the ellipsoids themselves."""
        values, places = self._inner(*result)
        true = self._labels(places)
        pairs = [(values == label, true == label) for label in LABELS]
        return {"mean Dice": float(np.mean([2 * (a & b).sum() / max(a.sum() + b.sum(), 1) for a, b in pairs]))}

    def _labels(self, places: Sequence[Array]) -> Array:
        extents = np.array(self.grid.shape) * self.grid.spacing_mm
        return ellipsoids([along / extent for along, extent in zip(places, extents, strict=True)])

    def _inner(self, values: Array, affine: Array) -> tuple[Array, list[Array]]:
        """Without what lies within two voxels of the scan's border, where libraries differ in what they assume outside."""
        places = places_mm(values.shape, affine)
        sides = zip(places, self.grid.shape, self.grid.spacing_mm, strict=True)
        kept = [np.flatnonzero((along >= 2 * mm) & (along <= (size - 3) * mm)) for along, size, mm in sides]
        return values[np.ix_(*kept)], [along[inside] for along, inside in zip(places, kept, strict=True)]
