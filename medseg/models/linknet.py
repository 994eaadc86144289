"""LinkNet: a residual encoder, whose maps are added on the way up, so that the decoder can be thin.

Family: fcn
Paper: Chaurasia, Culurciello 2017, LinkNet: Exploiting encoder representations for efficient semantic segmentation, arXiv:1707.03718

Presets:
    resnet18: 11,535,893 parameters for 3 channels and 21 classes in 2D.
    resnet34: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Width
from medseg.models._convs import finished, sliding_max, unit
from medseg.settings import Settings


class Config(Settings):
    """Options of a LinkNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem; the decoder follows.
        norm: after each convolution but the last.
    """

    depth: ResNetDepth = 18
    width: Width = 1.0
    norm: NormName = "batch"


PRESETS = {"resnet18": Config(), "resnet34": Config(depth=34), "tiny": Config(depth=10, width=0.11)}


class LinkNet(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps of strides 2 to 32.
        pool: of the first map: what the first residual stage sees.
        decoder: blocks from the coarsest, each the way back of a residual stage.
        head: from stride 4 to logits.
    """

    def __init__(self, trunk: Trunk, pool: nn.Module, decoder: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.pool, self.head = trunk, pool, head
        self.decoder = nn.ModuleList(decoder)

    def forward(self, x: Tensor) -> Tensor:
        stem, *seen, up = self.trunk(x)
        seen.insert(0, self.pool(stem))  # what each stage sees is added to what its block gives
        for block in self.decoder:
            link = seen.pop()
            up = link + _blocks.crop_like(block(up), link)
        return _blocks.crop_like(self.head(up), x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A LinkNet on a ResNet (figures 1 and 2)."""
    dims, norm = spatial_dims, config.norm
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)

    def up(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
        layer = _blocks.transposed(dims, inputs, outputs, stride, 3, bias=norm == "none")
        return finished(layer, outputs, norm)

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        narrow = max(inputs // 4, 2)
        return nn.Sequential(
            unit(dims, inputs, narrow, 1, norm=norm),
            up(narrow, narrow, stride),
            unit(dims, narrow, outputs, 1, norm=norm),
        )

    widths = trunk.channels
    decoder = [block(widths[n], widths[n - 1], 2 if n > 1 else 1) for n in (4, 3, 2, 1)]
    thin = max(widths[0] // 2, 1)
    head = nn.Sequential(
        up(widths[0], thin), unit(dims, thin, thin, norm=norm), _blocks.transposed(dims, thin, out_channels)
    )
    return _blocks.initialise(LinkNet(trunk, sliding_max(dims, 2), decoder, head))
