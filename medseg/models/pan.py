"""PAN: attention from a pyramid of the coarsest map, and finer maps that the coarser ones weight, channel by channel.

Family: attention
Paper: Li, Xiong, An, Wang 2018, Pyramid attention network for semantic segmentation, arXiv:1805.10180

Presets:
    resnet101: ResNet-101 of stride 16 and 32 channels on the way up: 43,257,692 parameters for 3 channels and 21 classes in 2D.
    resnet50: a smaller trunk: 24,265,564 parameters.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, ResNetDepth, resnet
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._context import ImagePooling
from medseg.models._convs import finished
from medseg.models._resizing import global_mean, resize_like
from medseg.models._segmenter import Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a PAN.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the paper.
        stride: of the trunk's last map, 8, 16 or 32.
        channels: on the way up; the paper gives no number.
        norm: after each convolution.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    deep_stem: bool = False
    stride: OutputStride = 16
    channels: Positive = 32
    norm: NormName = "batch"


PRESETS = {
    "resnet101": Config(),
    "resnet50": Config(depth=50),
    "tiny": Config(depth=10, width=1 / 13, channels=10),
}


class PyramidAttention(nn.Module):
    """A map's projection, weighted voxel by voxel by what three coarser scales say, and the image's mean (figure 3 b).

    Args:
        main: the projection.
        image: what the whole image says.
        down: from the map to half, a quarter and an eighth of its size, in a row: weights, one for all channels.
        across: from each of the first two of these to what is added on the way back.
    """

    def __init__(
        self, main: nn.Module, image: nn.Module, down: Sequence[nn.Module], across: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.main, self.image = main, image
        self.down, self.across = nn.ModuleList(down), nn.ModuleList(across)

    def forward(self, x: Tensor) -> Tensor:
        scales = [x]
        for part in self.down:
            scales.append(part(scales[-1]))
        *finer, weights = scales[1:]
        for part, scale in zip(reversed(self.across), reversed(finer), strict=True):
            weights = part(scale) + resize_like(weights, scale)
        return self.main(x) * resize_like(weights, x) + self.image(x)


class AttentionUp(nn.Module):
    """A finer map, each channel weighted by the coarser one's mean, and the coarser map (global attention upsample, figure 4)."""

    def __init__(self, narrow: nn.Module, weigh: nn.Module) -> None:
        super().__init__()
        self.narrow, self.weigh = narrow, weigh

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return resize_like(coarse, fine) + self.narrow(fine) * self.weigh(global_mean(coarse))


class Decoder(nn.Module):
    """Attention on the coarsest map, then up through the finer ones to stride 4 (figure 2)."""

    def __init__(self, attention: nn.Module, ups: Sequence[nn.Module]) -> None:
        super().__init__()
        self.attention, self.ups = attention, nn.ModuleList(ups)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        y: Tensor = self.attention(maps[-1])
        for up, fine in zip(self.ups, reversed(maps[1:-1]), strict=True):
            y = up(y, fine)
        return y


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, pyramid attention, three steps up, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels

    def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
        return finished(_blocks.conv(dims, inputs, outputs, kernel), outputs, norm)

    trunk = resnet(
        dims,
        in_channels,
        config.depth,
        width=config.width,
        norm=norm,
        output_stride=config.stride,
        deep_stem=config.deep_stem,
    )
    *finer, last = trunk.channels[1:]
    down = [
        nn.Sequential(_blocks.max_pool(dims), unit(last, 1, 7)),
        nn.Sequential(_blocks.max_pool(dims), unit(1, 1, 5)),
        nn.Sequential(_blocks.max_pool(dims), unit(1, 1, 3), unit(1, 1, 3)),
    ]
    image = ImagePooling(dims, last, width, norm=norm)
    attention = PyramidAttention(unit(last, width, 1), image, down, [unit(1, 1, 7), unit(1, 1, 5)])
    ups = [AttentionUp(unit(channels, width, 3), unit(width, width, 1)) for channels in reversed(finer)]
    scores = _blocks.conv(dims, width, out_channels)
    return _blocks.initialise(Segmenter(trunk, nn.Sequential(Decoder(attention, ups), scores)))
