"""Consistency: the network should say the same of the same image, disturbed. It needs no truth.

Formula: 1/N sum |p(x + noise) - p(x)|^2
Paper: Li et al. 2019, Transformation-consistent self-ensembling model for semi-supervised medical image segmentation, arXiv:1903.00348
Equation: 20 of Taghanaki et al. 2021
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._common import Loss, known, resolutions
from medseg.losses._context import LossContext
from medseg.losses._level import Level
from medseg.losses._options import Options, Weight


class Config(Options):
    """Options of the loss.

    Args:
        noise: standard deviation of what is added to each voxel of the image, in units of the image that the network sees.
            Dropout, where the network has any, disturbs it too.
    """

    noise: Weight = 0.1


class Consistency(Loss[Config]):
    """Mean over voxels, sum over classes. Every voxel counts, those ignored too: they are what it is for.

    The second prediction is `context.extras["second"]`, logits of any resolution, where the caller has them. Otherwise the
    network of the context is asked, as in training; that answer is taken as given, and has no slope.
    """

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """As in every loss; the network is asked once for all resolutions.

        Raises:
            ConfigError: the context has neither a second prediction nor a network and an image.
        """
        context = known(context)
        extras = {**(context.extras or {})}
        if "second" not in extras:
            extras["second"] = self._ask(context)
        return super().forward(output, target, replace(context, extras=extras))

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where both predictions are the same."""
        assert level.context.extras is not None
        second = level.fit(level.context.extras["second"])
        if second.shape != level.logits.shape:
            channels = level.logits.shape[1]
            raise ConfigError(
                f"the second prediction needs {channels} channels, as the first has, got {second.shape[1]}"
            )
        apart = (level.p - (second.softmax(1) if level.exclusive else second.sigmoid())).square()
        return (apart * level.by_channel(level.weights)).sum() / apart[:, 0].numel()

    def _ask(self, context: LossContext) -> Tensor:
        if context.predict is None or context.image is None:
            wanted = 'LossContext(extras={"second": logits}) or LossContext(image=image, predict=network)'
            raise ConfigError(f"this loss compares two predictions: give it {wanted}")
        with torch.no_grad():
            output = context.predict(context.image + self.config.noise * torch.randn_like(context.image))
        return resolutions(output)[0]


build = Consistency
