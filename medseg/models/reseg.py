"""ReSeg: recurrent layers sweep over the maps of a trunk along every axis, so that each element knows the whole image.

Family: recurrent
Paper: Visin, Ciccone, Romero, Kastner, Cho, Bengio, Matteucci, Courville 2016, ReSeg: a recurrent neural network-based model for
    semantic segmentation, arXiv:1511.07053
Without: torch.compile (torch leaves its recurrent layers out)

Presets:
    vgg16: the first seven convolutions of VGG-16, two layers of sweeps of 100 units, transposed convolutions of 50 channels. Four
        sweeps of an image, six of a volume.
    tiny: VGG-8, narrow, few units.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, VGGDepth, vgg
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._convs import finished
from medseg.models._recurrent import Sweeps
from medseg.settings import Settings


class Config(Settings):
    """Options of a ReSeg.

    Args:
        depth: layers of the VGG of which the first three stages, to a quarter of the size, are taken.
        width: of the trunk, 1 for 64 channels at the image's resolution.
        units: of each sweep, both ways.
        patches: of each layer of sweeps, elements an axis of the blocks that are seen as one.
        ups: channels of the transposed convolutions.
        norm: normalisation after each convolution.
    """

    depth: VGGDepth = 16
    width: Width = 1.0
    units: Positive = 100
    patches: tuple[Positive, ...] = (2, 1)
    ups: Positive = 50
    norm: NormName = "none"


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, units=6, patches=(1, 1), ups=8)}


class ReSeg(nn.Module):
    """The network of given parts; each step up ends beyond the image, which is then cut to size."""

    def __init__(self, trunk: Trunk, sweeps: nn.Module, ups: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.sweeps, self.ups, self.head = trunk, sweeps, nn.Sequential(*ups), head

    def forward(self, x: Tensor) -> Tensor:
        *_, coarsest = self.trunk(x)
        return self.head(_blocks.crop_like(self.ups(self.sweeps(coarsest)), x))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Three stages of a VGG, layers of sweeps, and as many steps up as there were down."""
    dims, whole = spatial_dims, vgg(spatial_dims, in_channels, config.depth, width=config.width, norm=config.norm)
    trunk = Trunk(list(whole.stages[:3]), whole.channels[:3], whole.strides[:3])
    inputs, sweeps = trunk.channels[-1], nn.Sequential()
    for patch in config.patches:
        sweeps.append(Sweeps(dims, inputs, config.units, patch))
        inputs = 2 * config.units
    ups = []
    for stride in (*(patch for patch in config.patches[::-1] if patch > 1), 2, 2):
        ups.append(finished(_blocks.transposed(dims, inputs, config.ups, stride), config.ups, config.norm))
        inputs = config.ups
    return _blocks.initialise(ReSeg(trunk, sweeps, ups, _blocks.conv(dims, inputs, out_channels, 1)))
