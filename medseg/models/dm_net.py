"""DMNet: filters of several sizes that each image makes for itself, each channel by its own.

Family: attention
Paper: He, Deng, Qiao 2019, Dynamic multi-scale filters for semantic segmentation, ICCV
Without: ONNX (a convolution with a group for each image of a batch)

Presets:
    resnet50: ResNet-50 of stride 8, filters of 1, 3, 5 and 7: 50,792,019 parameters for 3 channels and 19 classes in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow, filters of 1 and 3.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._backbones import resnet
from medseg.models._blocks import Kernel, NormName, Positive
from medseg.models._context import Joined
from medseg.models._convs import relu, unit
from medseg.models._resizing import mean_to
from medseg.models._segmenter import Pick, Segmenter, fcn_head
from medseg.settings import Settings


class Config(Settings):
    """Options of a DMNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        stride: of the trunk's last map, 8, 16 or 32.
        filters: sizes of the filters that an image makes, odd.
        channels: that each of them filters, and of the last unit.
        norm: after each convolution but those of the filters and of the scores.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[float, Field(gt=0)] = 1.0
    deep_stem: bool = False
    stride: Literal[8, 16, 32] = 8
    filters: tuple[Kernel, ...] = (1, 3, 5, 7)
    channels: Positive = 512
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux: bool = False


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(depth=10, width=1 / 16, filters=(1, 3), channels=8),
}


class DynamicFilter(nn.Module):
    """A map filtered, channel by channel, by what its own means over a grid of the filter's size make (figure 3)."""

    def __init__(self, dims: int, inputs: int, channels: int, size: _blocks.Size, norm: NormName) -> None:
        super().__init__()
        self.size = _blocks.ntuple(size, dims)
        self.filter = _blocks.conv(dims, inputs, channels, 1)
        self.voxels = unit(dims, inputs, channels, 1, norm=norm)
        self.after = nn.Sequential(_blocks.norm(norm, channels), relu())

    def forward(self, x: Tensor) -> Tensor:
        voxels, filters = self.voxels(x), self.filter(mean_to(x, self.size))
        convolve = F.conv2d if x.ndim == 4 else F.conv3d
        groups = voxels.shape[0] * voxels.shape[1]  # one for each channel of each image
        padding = [size // 2 for size in self.size]
        found = convolve(voxels.flatten(0, 1)[None], filters.flatten(0, 1)[:, None], padding=padding, groups=groups)
        return self.after(found.view_as(voxels))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, what each size of filter finds beside its last map, one 3x3 unit, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = resnet(
        dims,
        in_channels,
        config.depth,
        width=config.width,
        norm=norm,
        output_stride=config.stride,
        deep_stem=config.deep_stem,
    )
    *_, side, last = trunk.channels
    found = [DynamicFilter(dims, last, width, size, norm) for size in config.filters]
    head = nn.Sequential(
        Pick(-1),
        Joined([nn.Identity(), *found]),
        unit(dims, last + width * len(found), width, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    auxiliary = [fcn_head(dims, -2, side, out_channels, norm=norm)] if config.aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))
