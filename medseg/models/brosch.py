"""Convolutional encoder network with shortcuts: few, very large convolutions, and one way past the coarse level.

Family: u-shape
Paper: Brosch, Tang, Yoo, Li, Traboulsee, Tam 2016, Deep 3D convolutional encoder networks with shortcuts for multiscale
    feature integration applied to multiple sclerosis lesion segmentation, IEEE Transactions on Medical Imaging 35

Presets:
    paper: the network of seven layers with a shortcut (CEN-s, figure 1b), 32 filters of 9x9x9 voxels, where the paper's second
        convolution has 10: an odd one keeps the size. Convolutions are padded, the paper's are not.
    tiny: the same topology with few and small filters.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive
from medseg.models._ushape import Levels


class Config(Levels):
    """Options of a convolutional encoder network: levels alone. The way up mirrors the way down."""

    widths: tuple[Positive, ...] = (32, 32)
    strides: tuple[PerAxis, ...] = (2,)
    kernel: Kernel = 9
    norm: NormName = "none"


PRESETS = {"paper": Config(), "tiny": Config(widths=(6, 8), kernel=3)}


class EncoderNetwork(nn.Module):
    """The network of given parts, each list finest first.

    Args:
        convs: of each level, what comes in, with its rectifier.
        pools: steps between levels.
        deconvs: of each level, what goes out.
        shortcuts: of each level but the coarsest, what goes from its convolution straight to its way out.
        ends: what a level's sum passes through.
    """

    def __init__(
        self,
        convs: Sequence[nn.Module],
        pools: Sequence[nn.Module],
        unpools: Sequence[nn.Module],
        deconvs: Sequence[nn.Module],
        shortcuts: Sequence[nn.Module],
        ends: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.convs, self.pools, self.unpools = nn.ModuleList(convs), nn.ModuleList(pools), nn.ModuleList(unpools)
        self.deconvs, self.shortcuts, self.ends = (nn.ModuleList(parts) for parts in (deconvs, shortcuts, ends))

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for level, conv in enumerate(self.convs):
            x = conv(self.pools[level - 1](x) if level else x)
            maps.append(x)
        x = self.ends[-1](self.deconvs[-1](maps.pop()))
        for level in reversed(range(len(maps))):
            x = _blocks.crop_like(self.unpools[level](x), maps[level])
            x = self.ends[level](self.deconvs[level](x) + self.shortcuts[level](maps[level]))
        return x


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A convolutional encoder network of the given levels."""
    dims, kernel = spatial_dims, config.kernel

    def end(width: int) -> nn.Module:
        return nn.Sequential(_blocks.norm(config.norm, width), nn.ReLU())

    convs, deconvs, shortcuts, ends = [], [], [], []
    for level, width in enumerate(config.widths):
        before = config.widths[level - 1] if level else in_channels
        outputs = before if level else out_channels
        convs.append(nn.Sequential(_blocks.conv(dims, before, width, kernel), end(width)))
        deconvs.append(_blocks.transposed(dims, width, outputs, 1, kernel))
        shortcuts.append(_blocks.transposed(dims, width, outputs, 1, kernel, bias=False))
        ends.append(end(outputs) if level else nn.Identity())
    pools = [_blocks.mean_pool(dims, stride) for stride in config.strides]
    unpools = [_blocks.upsample(dims, stride) for stride in config.strides]
    return _blocks.initialise(EncoderNetwork(convs, pools, unpools, deconvs, shortcuts[:-1], ends))
