"""Mumford-Shah energy in boxes: of an object only its box is known, and the image says where in it the object lies.

Formula: 1/|box| sum_box [p |x - c1|^2 + (1 - p) |x - c2|^2 + length_weight |grad p|] + outside_weight 1/|out| sum_out p
Paper: Afshari et al. 2019, Weakly supervised fully convolutional network for PET lesion segmentation, SPIE Medical Imaging
Equation: none in Taghanaki et al. 2021; c1 and c2 are the means of the image x under p and 1 - p in the box
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._contours import length, spread
from medseg.losses._level import Level
from medseg.losses._maps import masks, objects_in
from medseg.losses._options import StructureOptions, Weight
from medseg.losses._regions import class_mean, first_structure


class Config(StructureOptions):
    """Options of the loss.

    Args:
        length_weight: of the contour in the box.
        outside_weight: of what is found outside all boxes.
    """

    length_weight: Weight = 0.1
    outside_weight: Weight = 1.0


class BoxMumfordShah(Loss[Config]):
    """Mean over samples and structures.

    A box holds a connected part of the truth, so that filled boxes may be given in place of masks; those of one structure are
    taken together. The image comes from the context. In boxes every voxel counts; outside, those that are not ignored.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; a structure without boxes costs what is found of it."""
        box, p = self._boxes(level), level.p
        outside = level.keep(1 - box)
        found = (outside * p).flatten(2).sum(2) / outside.flatten(2).sum(2).clamp(min=1)
        contour = (length(p, level.spacing_mm) * box).flatten(2).sum(2)
        energy = spread(level.image, box * p) + spread(level.image, box * (1 - p))
        inside = (energy + self.config.length_weight * contour) / box.flatten(2).sum(2).clamp(min=1)
        return class_mean(inside + self.config.outside_weight * found, level, self.config)

    def _boxes(self, level: Level) -> Tensor:
        """1 in boxes, else 0, `(B, K, *spatial)`."""
        mask, boxes = masks(level), torch.zeros_like(level.truth)
        for sample in range(len(mask)):
            for k in range(first_structure(level, self.config), mask.shape[1]):
                for box in objects_in(mask[sample, k])[1]:
                    boxes[sample, k][box] = 1
        return boxes


build = BoxMumfordShah
