"""LR-ASPP: a mobile trunk, one map weighted by the image's mean, and the scores of a finer map added.

Family: real-time
Paper: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019, Searching for MobileNetV3, arXiv:1905.02244

Presets:
    mobilenet_v3: MobileNetV3-Large of stride 16: 3,221,538 parameters for 3 channels and 21 classes in 2D.
    tiny: a narrow trunk.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, Trunk, mobilenet_v3
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._convs import unit
from medseg.models._resizing import global_mean, resize_like
from medseg.models._segmenter import Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of an LR-ASPP.

    Args:
        width: of the trunk, 1 for the paper's.
        stride: of the trunk's last map, 8, 16 or 32.
        channels: of the head.
        norm: after each convolution but those of the weights and of the scores.
    """

    width: Width = 1.0
    stride: OutputStride = 16
    channels: Positive = 128
    norm: NormName = "batch"


PRESETS = {"mobilenet_v3": Config(), "tiny": Config(width=1 / 8, channels=8)}
FINE = 2  # the map of stride 8


class Head(nn.Module):
    """Figure 10. The mean is over the whole image, as in today's implementations; the paper's is over 49x49 elements."""

    def __init__(self, dims: int, trunk: Trunk, channels: int, outputs: int, norm: NormName) -> None:
        super().__init__()
        last = trunk.channels[-1]
        self.values = unit(dims, last, channels, 1, norm=norm)
        self.weights = nn.Sequential(_blocks.conv(dims, last, channels, 1, bias=False), nn.Sigmoid())
        self.coarse = _blocks.conv(dims, channels, outputs, 1)
        self.fine = _blocks.conv(dims, trunk.channels[FINE], outputs, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        fine, last = maps[FINE], maps[-1]
        coarse = self.values(last) * self.weights(global_mean(last))
        return self.fine(fine) + self.coarse(resize_like(coarse, fine))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated MobileNetV3 and the head."""
    norm = config.norm
    trunk = mobilenet_v3(spatial_dims, in_channels, width=config.width, norm=norm, output_stride=config.stride)
    return _blocks.initialise(Segmenter(trunk, Head(spatial_dims, trunk, config.channels, out_channels, norm)))
