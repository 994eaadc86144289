"""APCNet: each voxel composes its context from the means of regions, by weights that it works out itself.

Family: attention
Paper: He, Deng, Zhou, Wang, Qiao 2019, Adaptive pyramid context network for semantic segmentation, CVPR

Presets:
    resnet50: ResNet-50 of stride 8, regions of grids of 1, 2, 3 and 6 an axis: 53,973,637 parameters for 3 channels and 19 classes
        in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow, grids of 1 and 2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import listed
from medseg.models._backbones import resnet
from medseg.models._blocks import NormName, Positive
from medseg.models._context import Joined
from medseg.models._convs import unit
from medseg.models._resizing import global_mean, mean_to
from medseg.models._segmenter import Pick, Segmenter, fcn_head
from medseg.settings import Settings


class Config(Settings):
    """Options of an APCNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        stride: of the trunk's last map, 8, 16 or 32.
        bins: regions an axis, of each grid.
        channels: of each grid's context and of the last unit.
        norm: after each convolution but those of the weights and of the scores.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[float, Field(gt=0)] = 1.0
    deep_stem: bool = False
    stride: Literal[8, 16, 32] = 8
    bins: tuple[Positive, ...] = (1, 2, 3, 6)
    channels: Positive = 512
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux: bool = False


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(depth=10, width=1 / 16, bins=(1, 2), channels=8),
}


class AdaptiveContext(nn.Module):
    """Regions' means, summed at each voxel by its own weights for them (figure 3).

    Weights are of the voxel and of the whole image (equation 4): voxels times regions of them, 216 at most in 3D.
    """

    def __init__(self, dims: int, inputs: int, channels: int, bins: int, norm: NormName) -> None:
        super().__init__()

        def point(before: int) -> nn.Module:
            return unit(dims, before, channels, 1, norm=norm)

        self.bins = bins
        self.voxels, self.regions, self.image = point(inputs), point(inputs), point(channels)
        self.weights = _blocks.conv(dims, channels, bins**dims, 1)
        self.mixed, self.last = point(channels), point(channels)

    def forward(self, x: Tensor) -> Tensor:
        regions, voxels = listed(self.regions(mean_to(x, self.bins))), self.voxels(x)  # (B, bins**dims, C)
        weights = self.weights(voxels + self.image(global_mean(voxels))).sigmoid()
        composed = (listed(weights) @ regions).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.last((self.mixed(composed) + voxels).relu())


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, the contexts of all grids beside its last map, one 3x3 unit, scores."""
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
    contexts = [AdaptiveContext(dims, last, width, bins, norm) for bins in config.bins]
    head = nn.Sequential(
        Pick(-1),
        Joined([nn.Identity(), *contexts]),
        unit(dims, last + width * len(contexts), width, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    auxiliary = [fcn_head(dims, -2, side, out_channels, norm=norm)] if config.aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))
