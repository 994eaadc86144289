"""Star-shape prior: between a voxel of an object and the object's centre lies no background.

Formula: 1/|t| sum_v t_v |t_v - p_v| mean_q [t_q |p_v - p_q|], q on the line from v to the centre of mass of t
Paper: Mirikharaji and Hamarneh 2018, Star shape prior in fully convolutional networks for skin lesion segmentation, MICCAI
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import StructureOptions, Times
from medseg.losses._regions import class_mean, structures


class Config(StructureOptions):
    """Options of the loss.

    Args:
        steps: places on each line that are looked at, evenly from the centre on.
    """

    steps: Times = 8


class StarShape(Loss[Config]):
    """Mean over samples and structures; it is 0 for an object missed as a whole, and stands beside another loss."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure that is absent."""
        p, truth = (values.flatten(0, 1)[:, None] for values in structures(level, self.config))
        centre = _centre(truth)
        breaks = torch.zeros_like(p)
        for step in range(self.config.steps):
            there = _towards(torch.cat([p, truth], 1), centre, step / self.config.steps)
            breaks = breaks + there[:, 1:] * (p - there[:, :1]).abs()
        each = truth * (truth - p).abs() * breaks / self.config.steps
        loss = each.flatten(1).sum(1) / truth.flatten(1).sum(1).clamp(min=1)
        return class_mean(loss.view(len(level.logits), -1), level, self.config)


def _centre(mask: Tensor) -> Tensor:
    """Centre of mass of masks `(N, 1, *spatial)`, `(N, D)`, in voxels."""
    total, places = mask.flatten(1).sum(1).clamp(min=1e-12), []
    for axis in range(2, mask.ndim):
        others = tuple(n for n in range(1, mask.ndim) if n != axis)
        places.append((mask.sum(others) * torch.arange(mask.shape[axis]).to(mask)).sum(1) / total)
    return torch.stack(places, 1)


def _towards(values: Tensor, centre: Tensor, share: float) -> Tensor:
    """Of each voxel, the values `(N, C, *spatial)` of the one nearest to a share of its way out from the centre."""
    for axis, middle in enumerate(centre.unbind(1), 2):
        place = torch.arange(values.shape[axis]).to(values).expand(len(values), -1)
        source = torch.lerp(middle[:, None].expand_as(place), place, share).round().long()
        shape = [len(values), *(1,) * (values.ndim - 1)]
        shape[axis] = values.shape[axis]
        values = values.gather(axis, source.view(shape).expand_as(values))
    return values


build = StarShape
