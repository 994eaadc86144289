"""W-Net: two U-Nets in series, of which the second corrects the first.

The W-Net of 2017 learns without labels: its first U parts an image into soft segments, and its second one must find the image
again from them, beside a soft normalised cut. Where there are labels, a second U that has seen the image too and gives the masks
is what is of use (Galdran et al., equation 2); the first one's masks are trained as well. That is what this is, of either's Us.

Family: u-shape
Paper: Xia, Kulis 2017, W-Net: a deep model for fully unsupervised image segmentation, arXiv:1711.08506; Galdran, Anjos, Dolz,
    Chakor, Lombaert, Ben Ayed 2020, The little W-Net that could, arXiv:2009.01907

Presets:
    paper: the Us of 2017, figure 1: 64 to 1024 channels, all but the outermost convolutions separable.
    little: the Us of 2020: 8 to 32 channels, ways past each stage, a convolution in each skip: 68,482 parameters for 3 channels
        and 1 class in 2D.
    tiny: the little topology with fewer channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Output, PerAxis, Positive, Size
from medseg.models._ushape import Levels, UShape


class Config(Levels):
    """Options of a W-Net: levels of both Us, and

    Args:
        separable: convolve each channel for itself and mix them after, everywhere but at the finest level.
        past: add to each stage a projection of what it was given.
        bridge: a convolution in each skip.
    """

    separable: bool = True
    past: bool = False
    bridge: bool = False


_LITTLE = Config(widths=(8, 16, 32), strides=(2, 2), separable=False, past=True, bridge=True)
PRESETS = {
    "paper": Config(),
    "little": _LITTLE,
    "tiny": _LITTLE.model_copy(update={"widths": (4, 5, 6)}),
}


class Stage(nn.Module):
    """Two convolutions, each rectified and then normalised, and what goes past them."""

    def __init__(self, body: nn.Module, past: nn.Module | None) -> None:
        super().__init__()
        self.body, self.past = body, past

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if self.past is None else self.body(x) + self.past(x)


class WNet(nn.Module):
    """The second U sees the image and the first one's logits."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor | Output:
        proposal = self.first(x)
        logits = self.second(torch.cat((x, proposal), dim=1))
        return Output(logits, (proposal,)) if self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A W-Net of the given levels."""
    first, second = (_u(config, spatial_dims, n, out_channels) for n in (in_channels, in_channels + out_channels))
    return WNet(first, second)


def _u(config: Config, dims: int, in_channels: int, out_channels: int) -> UShape:
    widths = config.widths

    def row(inputs: int, outputs: int) -> list[nn.Module]:
        conv = _blocks.conv(dims, inputs, outputs, config.kernel)
        if config.separable and widths[0] not in (inputs, outputs):
            conv = _separable(dims, inputs, outputs, config.kernel)
        return [conv, nn.ReLU(), _blocks.norm(config.norm, outputs)]

    def stage(inputs: int, outputs: int) -> nn.Module:
        projection = _blocks.conv(dims, inputs, outputs, 1, bias=False)
        past = nn.Sequential(projection, _blocks.norm(config.norm, outputs)) if config.past else None
        return Stage(nn.Sequential(*row(inputs, outputs), *row(outputs, outputs)), past)

    encoder: list[nn.Module] = [stage(in_channels, widths[0])]
    ups, skips, decoder = (list[nn.Module]() for _ in range(3))
    for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False):
        encoder.append(nn.Sequential(_blocks.max_pool(dims, stride), stage(fine, coarse)))
        ups.insert(0, _blocks.transposed(dims, coarse, fine, stride))
        skips.insert(0, nn.Sequential(*row(fine, fine)) if config.bridge else nn.Identity())
        decoder.insert(0, stage(2 * fine, fine))
    return UShape(encoder, ups, decoder, _blocks.conv(dims, widths[0], out_channels, 1), skips)


def _separable(dims: int, inputs: int, outputs: int, kernel: PerAxis) -> nn.Module:
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    sizes: tuple[Positive, ...] = _blocks.ntuple(kernel, dims)
    padding: Size = tuple(k // 2 for k in sizes)
    each = layer(inputs, inputs, sizes, padding=padding, groups=inputs)  # type: ignore[arg-type]
    return nn.Sequential(each, _blocks.conv(dims, inputs, outputs, 1))
