"""A scan as a network sees it, and what was found in it."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.geometry.region import Box
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it.

    Args:
        image: `(C, I, J, K)` float32, on `grid`.
        mask_grid: the scan's own grid, on which its mask will lie.
        box: of its voxels that `image` shows; elsewhere is background.
        meta: of the scan, as far as its mask takes it over.
        warnings: why the mask should be looked at.
    """

    image: Tensor
    grid: Geometry
    mask_grid: Geometry
    box: Box
    meta: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """A mask and what follows from it.

    Args:
        mask: labels in file values, on the scan's own grid; one channel per label where labels overlap without an order.
        labels: what the values mean.
        probabilities: `(K, I, J, K)` float32 on the same grid, background first unless labels overlap; None unless asked for.
        warnings: why the mask should be looked at, one line each: see `medseg.bundle.suitability`; or that nothing was found.
        passes: how often the network computed a voxel of the prepared scan, in the mean, because windows overlap.
        air_share: of the windows, which was left out because they hold nothing but air.
        variances: of the probabilities over samples, as `probabilities`, 0 to 1/4; None unless the model was sampled.
    """

    mask: Volume
    labels: Labels
    probabilities: Volume | None = None
    warnings: tuple[str, ...] = ()
    passes: float = 0.0
    air_share: float = 0.0
    variances: Volume | None = None

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each structure in millilitres, by name."""
        array, voxel_ml = self.mask.array, self.mask.geometry.voxel_ml
        if len(array) > 1:
            return {item.name: float(self.labels.mask(array, item).sum()) * voxel_ml for item in self.labels}
        voxels = Counter[int]()
        for plane in array[0]:  # once for all labels, of which there may be a hundred
            values, counts = np.unique(plane, return_counts=True)
            voxels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return {item.name: sum(voxels[value] for value in item.values) * voxel_ml for item in self.labels}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{ml:.3g} ml</td></tr>" for name, ml in self.volumes_ml.items()
        )
        notes = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)
        return f"{self.mask._repr_html_()}<table>{rows}</table>{notes}"
