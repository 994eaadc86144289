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

from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, Positive
from medseg.models._context import Joined
from medseg.models._convs import relu, unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._resizing import mean_to
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of a DMNet, besides those of `_dilated.StemOptions`.

    Args:
        filters: sizes of the filters that an image makes, odd.
        channels: that each of them filters, and of the last unit.
        norm: after each convolution but those of the filters and of the scores.
    """

    filters: tuple[Kernel, ...] = (1, 3, 5, 7)
    channels: Positive = 512


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
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    found = [DynamicFilter(dims, last, width, size, norm) for size in config.filters]
    head = nn.Sequential(
        Pick(-1),
        Joined([nn.Identity(), *found]),
        unit(dims, last + width * len(found), width, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
