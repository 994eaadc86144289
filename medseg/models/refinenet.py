"""RefineNet: coarse maps refined step by step by finer ones, through residual units, fusion and chained pooling.

Family: pyramid
Paper: Lin, Milan, Shen, Reid 2017, RefineNet: multi-path refinement networks for high-resolution semantic segmentation,
    arXiv:1611.06612

Presets:
    resnet101: ResNet-101, 512 channels at the coarsest map and 256 at others, four pooling steps a chain: 118,063,957
        parameters for 3 channels and 21 classes in 2D.
    resnet50: a smaller trunk.
    resnet152: a larger one.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, resnet
from medseg.models._blocks import NormName, Positive, Share, Times, Width
from medseg.models._context import ChainedPooling, begin_small, residual_conv_unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a RefineNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        channels: of the refined maps; the double at the coarsest.
        pools: steps of each chain of poolings.
        norm: after each convolution of the trunk; the rest has none.
        dropout: share of values of the two coarsest maps dropped, 0 to 1.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    channels: Positive = 256
    pools: Times = 4
    norm: NormName = "batch"
    dropout: Share = 0.5


PRESETS = {
    "resnet101": Config(),
    "resnet50": Config(depth=50),
    "resnet152": Config(depth=152),
    "tiny": Config(depth=10, width=1 / 13, channels=6, pools=2, dropout=0.1),
}


class Refine(nn.Module):
    """Maps, finest first, by their paths and at the finest one's size, summed; then what comes after (figure 3 a)."""

    def __init__(self, paths: Sequence[nn.Module], after: nn.Module) -> None:
        super().__init__()
        self.paths, self.after = nn.ModuleList(paths), after

    def forward(self, *maps: Tensor) -> Tensor:
        first, *others = (path(x) for path, x in zip(self.paths, maps, strict=True))
        return self.after(sum((resize_like(other, first) for other in others), first))


class Cascade(nn.Module):
    """Each map, brought to few channels, refines what the coarser ones gave (figure 2 c)."""

    def __init__(self, narrow: Sequence[nn.Module], blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.narrow, self.blocks = nn.ModuleList(narrow), nn.ModuleList(blocks)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, last = (part(x) for part, x in zip(self.narrow, maps[1:], strict=True))
        *others, coarsest = self.blocks
        y: Tensor = coarsest(last)
        for block, x in zip(reversed(others), reversed(finer), strict=True):
            y = block(x, y)
        return y


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, four RefineNet blocks on its maps of strides 4 to 32, two more residual units, scores."""
    dims, width = spatial_dims, config.channels
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=config.norm)
    widths = (width, width, width, 2 * width)
    narrow = [
        nn.Sequential(nn.Dropout(config.dropout if n > 1 else 0), _blocks.conv(dims, channels, widths[n], bias=False))
        for n, channels in enumerate(trunk.channels[1:])
    ]
    blocks = [_block(dims, (own, coarser), config.pools) for own, coarser in pairwise(widths)]
    blocks.append(_block(dims, widths[-1:], config.pools))
    units = [residual_conv_unit(dims, width) for _ in range(2)]
    head = nn.Sequential(Cascade(narrow, blocks), *units, _blocks.conv(dims, width, out_channels))
    model = _blocks.initialise(Segmenter(trunk, head))
    begin_small(head)
    return model


def _block(dims: int, inputs: Sequence[int], pools: int) -> Refine:
    """A block whose answer has the finest map's channels; a single map needs no fusion."""
    outputs = inputs[0]
    paths = [nn.Sequential(*(residual_conv_unit(dims, channels) for _ in range(2))) for channels in inputs]
    if len(paths) > 1:
        for path, channels in zip(paths, inputs, strict=True):
            path.append(_blocks.conv(dims, channels, outputs, bias=False))
    return Refine(paths, nn.Sequential(ChainedPooling(dims, outputs, pools), residual_conv_unit(dims, outputs)))
