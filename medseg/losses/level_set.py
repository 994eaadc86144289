"""Level-set loss: classes whose voxels look alike in the image, with short contours. It needs no truth.

Formula: 1/N sum_k [sum p_k |x - c_k|^2 + length_weight sum |grad p_k|], c_k the mean of the image x under p_k
Paper: Kim and Ye 2020, Mumford-Shah loss functional for image segmentation with deep learning, IEEE TIP
Equation: 29 and 30 of Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._contours import length, spread
from medseg.losses._level import Level
from medseg.losses._options import Options, Weight


class Config(Options):
    """Options of the loss.

    Args:
        length_weight: lambda, which the review does not give.
    """

    length_weight: Weight = 0.1


class LevelSet(Loss[Config]):
    """Mean over voxels, sum over classes; beside another loss it smooths what that leaves open.

    The image comes from the context. With "sigmoid" each channel divides the image into inside and outside. Every voxel
    counts, those ignored too: they are what the loss is for.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for one class that fills an image of one value."""
        p = level.p
        energy = spread(level.image, p) if level.exclusive else spread(level.image, p) + spread(level.image, 1 - p)
        contour = length(p, level.spacing_mm).flatten(2).sum(2)
        total = (energy + self.config.length_weight * contour) * level.weights
        return total.sum(1).mean() / p[0, 0].numel()


build = LevelSet
