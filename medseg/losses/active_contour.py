"""Active contour loss: a short contour that encloses the truth.

Formula: 1/N sum sqrt(|grad p|^2 + epsilon) + region_weight 1/N sum [p (1 - t)^2 + (1 - p) t^2]
Paper: Chen et al. 2019, Learning active contour models for medical image segmentation, CVPR
Equation: 21 to 23 of Taghanaki et al. 2021, which calls v a given image: with c1 = 1 and c2 = 0 it is the truth
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._contours import length
from medseg.losses._level import Level
from medseg.losses._options import StructureOptions, Weight
from medseg.losses._regions import structures, voxel_mean


class Config(StructureOptions):
    """Options of the loss.

    Args:
        region_weight: lambda, which the review does not give. Where it is less than the surface of a structure divided by its
            volume (in mm, or in voxels where the context knows no spacing), nothing is the cheapest answer.
    """

    region_weight: Weight = 5.0


class ActiveContour(Loss[Config]):
    """Mean over voxels and structures: the paper's sums, in a size that does not follow the patch."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts, 1e-4 where nothing is found and nothing there."""
        p, truth = structures(level, self.config)
        region = p * (1 - truth).square() + (1 - p) * truth.square()
        contour = length(p, level.spacing_mm, level.valid)
        return voxel_mean(contour + self.config.region_weight * region, level, self.config)


build = ActiveContour
