"""HRNet + OCR: each voxel of a fine map learns from the regions that coarse scores assign to the classes.

Family: attention
Paper: Yuan, Chen, Wang 2020, Object-contextual representations for semantic segmentation, arXiv:1909.11065

Presets:
    w48: HRNetV2-W48, 512 channels for voxels and 256 where they are compared with regions: 70,372,678 parameters for 3 channels
        and 19 classes in 2D.
    w18: a smaller trunk.
    tiny: a small trunk, narrow.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import HRNetSize, hrnet
from medseg.models._blocks import NormName, Output, Positive, Share, Width
from medseg.models._regions import Regions
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of an HRNet with OCR.

    Args:
        trunk: channels of its finest stream.
        width: of all streams, 1 for those in the trunk's name.
        channels: of the voxels' and of the regions' representations; half of them where these are compared.
        norm: after each convolution.
        dropout: share of values dropped before the scores, 0 to 1.
        aux: in training also the coarse scores, which make the regions; the paper always compares them with the truth.
    """

    trunk: HRNetSize = "w48"
    width: Width = 1.0
    channels: Positive = 512
    norm: NormName = "batch"
    dropout: Share = 0.05
    aux: bool = False


PRESETS = {
    "w48": Config(),
    "w18": Config(trunk="w18"),
    "tiny": Config(trunk="w18_small_v1", width=1 / 8, channels=8),
}


class HRNetOCR(nn.Module):
    """The network of given parts; with `aux`, in training the coarse scores too."""

    def __init__(self, regions: Regions, scores: nn.Module, *, aux: bool) -> None:
        super().__init__()
        self.regions, self.scores, self.aux = regions, scores, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        seen, coarse = self.regions(x)
        logits = resize_like(self.scores(seen), x)
        return Output(logits, (coarse,)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """HRNetV2, coarse scores, object context, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = hrnet(dims, in_channels, config.trunk, width=config.width, norm=norm)
    regions = Regions(dims, trunk, width, out_channels, dropout=config.dropout, norm=norm)
    return _blocks.initialise(HRNetOCR(regions, _blocks.conv(dims, width, out_channels, 1), aux=config.aux))
