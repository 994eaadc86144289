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

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import listed
from medseg.models._blocks import NormName, Positive
from medseg.models._context import Joined
from medseg.models._convs import unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._resizing import global_mean, mean_to
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of an APCNet, besides those of `_dilated.StemOptions`.

    Args:
        bins: regions an axis, of each grid.
        channels: of each grid's context and of the last unit.
        norm: after each convolution but those of the weights and of the scores.
    """

    bins: tuple[Positive, ...] = (1, 2, 3, 6)
    channels: Positive = 512


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
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    contexts = [AdaptiveContext(dims, last, width, bins, norm) for bins in config.bins]
    head = nn.Sequential(
        Pick(-1),
        Joined([nn.Identity(), *contexts]),
        unit(dims, last + width * len(contexts), width, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
