"""Top-k cross entropy: only the voxels that are worst count.

Formula: mean of the k N largest of -ln p_true
Paper: Wu, Shen and van den Hengel 2016, Bridging category-level and instance-level semantic image segmentation, arXiv:1605.06885
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options
from medseg.losses._voxels import answers, balance, each_voxel

_ROUNDING = 1e-4  # .27 of 100 voxels are 27, though in single precision a little more


class Config(Options):
    """Options of the loss.

    Args:
        k: share of the voxels of a batch that count, over 0 to 1; parts of a voxel count as one.
    """

    k: Annotated[float, Field(gt=0, le=1)] = 0.1


class TopK(Loss[Config]):
    """Mean over the worst voxels of the batch (with "sigmoid", of voxels and channels). With `k` 1 it is `cross_entropy`."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        losses = each_voxel(level, torch.neg, balance(level)).flatten()
        wanted = (self.config.k * answers(level) - _ROUNDING).ceil().clamp(min=1)
        worst = losses.topk(math.ceil(self.config.k * len(losses))).values
        # fewer count where some are ignored; how many, an accelerator knows without the host having to wait
        counts = torch.arange(len(worst), device=worst.device) < wanted
        return (worst * counts).sum() / wanted


build = TopK
