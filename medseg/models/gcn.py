"""GCN: scores by large kernels made of lines, at each resolution, refined at boundaries and added up from the coarsest.

Family: pyramid
Paper: Peng, Zhang, Yu, Luo, Sun 2017, Large kernel matters: improve semantic segmentation by global convolutional network,
    arXiv:1703.02719

Presets:
    resnet152: ResNet-152 and kernels of 15: 60,723,364 parameters for 3 channels and 21 classes in 2D.
    resnet50: a smaller trunk.
    tiny: ResNet-10, narrow, kernels of 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._context import LargeKernel, begin_small, boundary_refinement
from medseg.models._dilated import OnResNet
from medseg.models._resizing import BilinearUp


class Config(OnResNet):
    """Options of a GCN, besides those of `_dilated.OnResNet`.

    Args:
        k: voxels an axis of the large kernels.
        norm: after each convolution of the trunk; the rest has none.
    """

    depth: ResNetDepth = 152
    k: Literal[3, 5, 7, 9, 11, 13, 15] = 15


PRESETS = {"resnet152": Config(), "resnet50": Config(depth=50), "tiny": Config(depth=10, width=1 / 13, k=3)}


class GCN(nn.Module):
    """The network of given parts (figure 2 A).

    Args:
        trunk: a map of half the image's size, and coarser ones.
        scores: of the coarser maps, finest first.
        ups: steps up by 2, coarsest first: to each of these maps, to half the size, to the image's.
        refinements: after each step.
    """

    def __init__(
        self, trunk: Trunk, scores: Sequence[nn.Module], ups: Sequence[nn.Module], refinements: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.trunk, self.scores = trunk, nn.ModuleList(scores)
        self.ups, self.refinements = nn.ModuleList(ups), nn.ModuleList(refinements)

    def forward(self, x: Tensor) -> Tensor:
        half, *maps = self.trunk(x)
        *finer, y = (score(map_) for score, map_ in zip(self.scores, maps, strict=True))
        for own, up, refine in zip(reversed(finer), self.ups, self.refinements, strict=False):
            y = refine(own + _blocks.crop_like(up(y), own))
        for size, up, refine in zip((half, x), self.ups[-2:], self.refinements[-2:], strict=True):
            y = refine(_blocks.crop_like(up(y), size))
        return y


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, large kernels on its maps of strides 4 to 32, the way up."""
    dims, classes = spatial_dims, out_channels
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=config.norm)
    scores = [
        nn.Sequential(LargeKernel(dims, channels, classes, config.k), boundary_refinement(dims, classes))
        for channels in trunk.channels[1:]
    ]
    ups = [BilinearUp(dims, classes, 2) for _ in trunk.channels]
    refinements = [boundary_refinement(dims, classes) for _ in ups]
    model = _blocks.initialise(GCN(trunk, scores, ups, refinements))
    for part in (*scores, *refinements):
        begin_small(part)
    return model
