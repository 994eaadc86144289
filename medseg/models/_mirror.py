"""A VGG and its mirror, which puts each value back where the pooling had found it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models._backbones import Stages
from medseg.models._backbones.vgg import DEPTHS, VGGDepth, vgg_channels, vgg_stage
from medseg.models._blocks import NormName, Width
from medseg.models._resizing import max_pool_where, unpool
from medseg.settings import Settings


class Options(Settings):
    """Options of a network that is a VGG and its mirror.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of all stages, 1 for 64 to 512 channels.
        norm: after each convolution but the last.
    """

    depth: VGGDepth = 16
    width: Width = 1.0
    norm: NormName = "batch"


class Mirror(nn.Module):
    """The network of given stages: of the encoder from the finest, of the decoder from the coarsest.

    Args:
        encoder: stages, each followed by a pooling.
        decoder: stages, each after the step back from that pooling.
        middle: between the two, on the coarsest pooled map.
    """

    def __init__(
        self, encoder: Sequence[nn.Module], decoder: Sequence[nn.Module], middle: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = Stages(encoder), nn.ModuleList(decoder)
        self.middle = middle or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, where = max_pool_where(x)
            pooled.append((where, size))
        x = self.middle(x)
        for stage in self.decoder:
            x = stage(unpool(x, *pooled.pop()))
        return x


def mirrored_vgg(
    dims: int, inputs: int, last: nn.Module, config: Options
) -> tuple[list[nn.Sequential], list[nn.Sequential]]:
    """Stages of a VGG, and of its mirror, in which `last` stands for the mirror of the first convolution."""
    widths, convs = (inputs, *vgg_channels(config.width)), DEPTHS[config.depth]
    encoder: list[nn.Sequential] = []
    decoder: list[nn.Sequential] = []
    for level, count in enumerate(convs):
        finer, channels = widths[level], widths[level + 1]
        encoder.append(vgg_stage(dims, finer, channels, count, norm=config.norm))
        back = vgg_stage(dims, channels, channels, count - 1, norm=config.norm)
        decoder.insert(0, back.extend(vgg_stage(dims, channels, finer, 1, norm=config.norm) if level else [last]))
    return encoder, decoder
