"""DilatedNet: a dense VGG16 without its last poolings, and a module of ever larger dilations that refines its scores.

Family: dilated
Paper: Yu, Koltun 2016, Multi-scale context aggregation by dilated convolutions, arXiv:1511.07122

Presets:
    basic: front end and the basic context module (table 1): 134,374,973 parameters for 3 channels and 21 classes in 2D.
    large: the context module with 2 to 32 times as many channels as classes.
    dilation10: two layers more, of dilations 32 and 64, as for the Cityscapes (section 5.1).
    front_end: without context.
    tiny: basic, on one narrow convolution a stage.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, VGGDepth, vgg
from medseg.models._backbones.vgg import vgg_hidden
from medseg.models._blocks import Kernel, Output, Positive, Share, Width
from medseg.models._convs import unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import Pick
from medseg.settings import Settings

RATES = (1, 1, 2, 4, 8, 16, 1)


class Config(Settings):
    """Options of a DilatedNet.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of the trunk, 1 for 64 to 512 channels.
        hidden: channels of the convolutions in place of fully connected layers.
        reach: odd number of elements that the first of these sees along an axis, every fourth.
        context: with the context module.
        rates: dilations of its 3x3 layers.
        multiples: channels of each of these layers, in multiples of the classes.
        dropout: share of values dropped after each of the hidden convolutions, 0 to 1.
        aux: in training also the scores of the front end, which the paper trains first.
    """

    depth: VGGDepth = 16
    width: Width = 1.0
    hidden: Positive = 4096
    reach: Kernel = 7
    context: bool = True
    rates: tuple[Positive, ...] = RATES
    multiples: tuple[Positive, ...] = (1,) * len(RATES)
    dropout: Share = 0.5
    aux: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.rates), multiples=self.multiples)
        return self


PRESETS = {
    "basic": Config(),
    "large": Config(multiples=(2, 2, 4, 8, 16, 32, 32)),
    "dilation10": Config(rates=(1, 1, 2, 4, 8, 16, 32, 64, 1), multiples=(1,) * 9),
    "front_end": Config(context=False),
    "tiny": Config(depth=8, width=1 / 16, hidden=8, reach=3, dropout=0.1),
}


class DilatedNet(nn.Module):
    """Scores of a trunk and a front end, and what the context makes of them. With `aux`, in training the first too."""

    def __init__(self, trunk: Trunk, front: nn.Module, context: nn.Module, *, aux: bool) -> None:
        super().__init__()
        self.trunk, self.front, self.context, self.aux = trunk, front, context, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        scores = self.front(self.trunk(x))
        logits = resize_like(self.context(scores), x)
        return Output(logits, (scores,)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A front end (section 4) and a context module (section 3)."""
    dims, hidden = spatial_dims, config.hidden
    trunk = vgg(dims, in_channels, config.depth, width=config.width, output_stride=8)
    scores = (nn.Conv2d if dims == 2 else nn.Conv3d)(hidden, out_channels, 1)
    front = nn.Sequential(
        Pick(-1),
        vgg_hidden(dims, trunk.channels[-1], hidden, config.reach, dilation=4, dropout=config.dropout),
        scores,
    )
    context = nn.Sequential()
    if config.context:
        inputs = out_channels
        for rate, multiple in zip(config.rates, config.multiples, strict=True):
            context.append(unit(dims, inputs, multiple * out_channels, dilation=rate, norm="none"))
            inputs = multiple * out_channels
        context.append(_blocks.conv(dims, inputs, out_channels, 1))
    net = _blocks.initialise(DilatedNet(trunk, front, context, aux=config.aux))
    if config.context:
        nn.init.ones_(scores.bias)  # type: ignore[arg-type]  # the context's rectifiers let positive scores pass
    for part in context.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            _let_pass(part, out_channels)
    return net


@torch.no_grad()
def _let_pass(conv: nn.Conv2d | nn.Conv3d, classes: int) -> None:
    """Weights that let the scores of each class pass (equations 4 and 5), with a little noise where a class has many channels."""
    inputs, outputs = conv.in_channels, conv.out_channels
    share = classes / outputs
    same = torch.arange(outputs)[:, None] * classes // outputs == torch.arange(inputs) * classes // inputs
    conv.weight.normal_(std=0.01 * share if max(inputs, outputs) > classes else 0)
    middle: tuple[Any, ...] = (..., *(size // 2 for size in conv.kernel_size))
    conv.weight[middle] += share * same
