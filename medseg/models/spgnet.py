"""SPGNet: two encoders with decoders in a row, of which the first one's scores say what the second looks at.

Family: attention
Paper: Cheng, Chen, Wei, Zhu, Huang, Xiong, Huang, Hwu, Shi 2019, SPGNet: Semantic prediction guidance for scene parsing,
    arXiv:1908.09798

Presets:
    resnet50: two ResNets-50: 57,189,350 parameters for 3 channels and 19 classes in 2D.
    resnet18: two smaller ones.
    tiny: two ResNets-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, resnet
from medseg.models._backbones.resnet import bottleneck
from medseg.models._blocks import NormName, Output, Width
from medseg.models._context import ImagePooling
from medseg.models._convs import unit
from medseg.models._resizing import resize_like
from medseg.settings import Settings

Maps = Sequence[Tensor]


class Config(Settings):
    """Options of an SPGNet.

    Args:
        depth: layers of each ResNet.
        width: of each ResNet, 1 for 64 channels after its stem.
        stages: encoders with decoders in a row.
        channels: of the decoders' maps.
        norm: after each convolution.
        aux: in training also the scores that guide, of stride 4: the paper supervises each stage.
    """

    depth: Literal[10, 18, 34, 50, 101] = 50
    width: Width = 1.0
    stages: Annotated[int, Field(ge=2, le=100)] = 2
    channels: Annotated[int, Field(ge=4)] = 256
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {"resnet50": Config(), "resnet18": Config(depth=18), "tiny": Config(depth=10, width=1 / 16, channels=24)}


class Decoder(nn.Module):
    """From an encoder's maps to maps of equal channels, both finest first (figure 2, a and b).

    It begins with the means of the coarsest map. Each step interpolates what has come, adds the encoder's map of that size, and
    ends in a bottleneck.
    """

    def __init__(self, dims: int, inputs: Sequence[int], channels: int, norm: NormName) -> None:
        super().__init__()
        self.image = ImagePooling(dims, inputs[-1], channels, norm="none")  # a batch of means is too few to normalise
        self.laterals = nn.ModuleList([unit(dims, n, channels, 1, norm=norm, act=None) for n in inputs])
        self.blocks = nn.ModuleList([bottleneck(dims, channels, channels, norm=norm) for _ in inputs])

    def forward(self, maps: Maps) -> Maps:
        x = self.image(maps[-1])
        found: list[Tensor] = []
        for n in reversed(range(len(maps))):
            x = self.blocks[n](resize_like(x, maps[n]) + self.laterals[n](maps[n]))
            found.insert(0, x)
        return found


class Guidance(nn.Module):
    """Semantic prediction guidance: the classes' scores, and the map weighted by what they say (figure 1 c)."""

    def __init__(self, dims: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.scores = _blocks.conv(dims, channels, outputs, 1)
        self.weigh = nn.Sequential(_blocks.conv(dims, outputs, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(x)
        return x * self.weigh(scores), scores


class Again(nn.Module):
    """A later encoder: the residual stages, each of which adds the earlier stage's maps of its size (figure 2 c).

    As Li et al. 2019, Rethinking on multi-stage networks for human pose estimation, arXiv:1901.00148, figure 3: those of the
    earlier encoder and of its decoder, each by a 1x1 unit.

    Args:
        dims: spatial axes.
        trunk: whose residual stages these are.
        channels: of the earlier decoder's maps.
        norm: after each convolution.
    """

    def __init__(self, dims: int, trunk: Trunk, channels: int, norm: NormName) -> None:
        super().__init__()
        stem, *widths = trunk.channels
        _, first, *others = trunk.stages
        blocks = list(first.children())[1:]  # without the pooling: the map has stride 4
        self.enter = unit(dims, channels, stem, 1, norm=norm)
        self.stages = nn.ModuleList([nn.Sequential(*blocks), *others])
        self.encoded = nn.ModuleList([unit(dims, n, n, 1, norm=norm) for n in widths])
        self.decoded = nn.ModuleList([unit(dims, channels, n, 1, norm=norm) for n in widths])

    def forward(self, x: Tensor, encoded: Maps, decoded: Maps) -> Maps:
        x, maps = self.enter(x), []
        for n, stage in enumerate(self.stages):
            x = stage(x) + self.encoded[n](encoded[n]) + self.decoded[n](decoded[n])
            maps.append(x)
        return maps


class SPGNet(nn.Module):
    """The network of given parts: a trunk and later encoders, a decoder for each, what guides between them, scores."""

    def __init__(
        self,
        trunk: Trunk,
        again: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        guides: Sequence[nn.Module],
        scores: nn.Module,
        *,
        aux: bool,
    ) -> None:
        super().__init__()
        self.trunk, self.scores, self.aux = trunk, scores, aux
        self.again, self.decoders, self.guides = map(nn.ModuleList, (again, decoders, guides))

    def forward(self, image: Tensor) -> Tensor | Output:
        first, *decoders = self.decoders
        _, *encoded = self.trunk(image)
        decoded, levels = first(encoded), []
        for guide, encoder, decoder in zip(self.guides, self.again, decoders, strict=True):
            x, scores = guide(decoded[0])
            levels.append(scores)
            encoded = encoder(x, encoded, decoded)
            decoded = decoder(encoded)
        logits = resize_like(self.scores(decoded[0]), image)
        return Output(logits, tuple(levels)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """As many ResNets with decoders as the configuration has stages, none of them dilated."""
    dims, norm, channels, later = spatial_dims, config.norm, config.channels, range(config.stages - 1)

    def trunk() -> Trunk:
        return resnet(dims, in_channels, config.depth, width=config.width, norm=norm)

    first = trunk()
    again = [Again(dims, trunk(), channels, norm) for _ in later]
    decoders = [Decoder(dims, first.channels[1:], channels, norm) for _ in range(config.stages)]
    guides = [Guidance(dims, channels, out_channels) for _ in later]
    scores = _blocks.conv(dims, channels, out_channels, 1)
    return _blocks.initialise(SPGNet(first, again, decoders, guides, scores, aux=config.aux))
