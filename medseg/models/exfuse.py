"""ExFuse: a GCN whose fine maps are told what is seen and whose coarse ones where, before the two are fused.

The paper has its early stages learn classes while the trunk learns ImageNet (semantic supervision); here `aux` does it, by
scores of voxels. Each voxel says what its neighbours are, too, and the mean of what is said of it is its score.

Family: pyramid
Paper: Zhang, Zhang, Peng, Xue, Sun 2018, ExFuse: enhancing feature fusion for semantic segmentation, arXiv:1804.03821

Presets:
    resnext101: ResNeXt-101 32x4d, its 33 blocks moved to the early stages, kernels of 7: 107,359,872 parameters for 3 channels
        and 21 classes in 2D.
    resnet101: without groups.
    tiny: ResNet-10, narrow, kernels of 3, a narrow decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import Output, Positive, Times
from medseg.models._context import LargeKernel
from medseg.models._dilated import OnResNet
from medseg.models._resizing import BilinearUp, dense_upsampling, resize_like
from medseg.models._segmenter import fcn_head


class Config(OnResNet):
    """Options of an ExFuse, besides those of `_dilated.OnResNet`.

    Args:
        depth: of the ResNet; from 50 on it is made of bottlenecks.
        blocks: of its four stages. (8, 8, 9, 8) has as many as (3, 4, 23, 3), and costs as much: layer rearrangement.
        groups: of the 3x3 convolutions of bottlenecks, 1 for a plain ResNet.
        k: voxels an axis of the large kernels.
        window: voxels an axis of the neighbourhood of which each voxel gives scores, 1 for itself alone.
        channels: of the decoder; none for the paper's, classes times voxels of the window.
        norm: after each convolution of the trunk; the rest has none.
        aux: in training also scores of the trunk's maps of strides 4 to 16, and of the decoder's first step.
    """

    depth: ResNetDepth = 101
    blocks: tuple[Times, Times, Times, Times] = (8, 8, 9, 8)
    groups: Positive = 32
    k: Literal[3, 5, 7, 9, 11, 13, 15] = 7
    window: Literal[1, 3, 5] = 3
    channels: Positive | None = None
    aux: bool = False


PRESETS = {
    "resnext101": Config(),
    "resnet101": Config(groups=1),
    "tiny": Config(depth=10, blocks=(1, 1, 1, 1), groups=1, width=5 / 64, k=3, channels=6),
}


class Embedding(nn.Module):
    """A fine map times what each coarser one says at its place (semantic embedding branch, figure 4).

    All factors begin near 1, for the product of several that are not is dead or wild.
    """

    def __init__(self, dims: int, fine: int, coarser: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_blocks.conv(dims, channels, fine) for channels in coarser])

    @torch.no_grad()
    def begin(self) -> None:
        """Give the convolutions, which have their first weights, a tenth of these around 1."""
        for weight in self.convs.parameters():
            weight.fill_(1) if weight.ndim == 1 else weight.mul_(0.1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine, *coarser = maps
        for conv, coarse in zip(self.convs, coarser, strict=True):
            fine = fine * resize_like(conv(coarse), maps[0])
        return fine


class Adjacent(nn.Module):
    """Scores of a voxel: the mean of what its neighbours and itself say of it (densely adjacent prediction, section 3.2).

    Channels are those of each class in turn, one a voxel of the window. Beyond the edge, voxels say what those at it do.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        dims, k = x.ndim - 2, self.window
        classes, views = x.shape[1] // k**dims, k**dims
        own = torch.eye(views, dtype=x.dtype, device=x.device).view(1, views, *(k,) * dims) / views
        x = F.pad(x, (k // 2,) * (2 * dims), mode="replicate")
        gather = F.conv2d if dims == 2 else F.conv3d
        return gather(x, own.repeat(classes, *[1] * (dims + 1)), groups=classes)


class ExFuse(nn.Module):
    """The network of given parts (figure 2).

    Args:
        trunk: a map of half the image's size, and four coarser ones.
        embeddings: of these four, finest first, each with all that are coarser.
        kernels: from each embedded map to the decoder's channels.
        resolve: from the coarsest of these to the next size, by channels that become voxels (ECRE, section 3.2).
        ups: the other steps up by 2.
        scores: from the decoder's channels.
        semantic: in training, further scores of the trunk's maps, finest first.
    """

    def __init__(
        self,
        trunk: Trunk,
        embeddings: Sequence[nn.Module],
        kernels: Sequence[nn.Module],
        resolve: nn.Module,
        ups: Sequence[nn.Module],
        scores: nn.Module,
        semantic: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.resolve, self.scores = trunk, resolve, scores
        self.embeddings, self.kernels, self.ups = map(nn.ModuleList, (embeddings, kernels, ups))
        self.semantic = nn.ModuleList(semantic)

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        parts = enumerate(zip(self.embeddings, self.kernels, strict=True), start=1)
        *finer, y = (kernel(embed(maps[n:])) for n, (embed, kernel) in parts)
        resolved = _blocks.crop_like(self.resolve(y), finer[-1])
        y = resolved + finer.pop()
        for up, own in zip(self.ups, reversed(finer), strict=False):
            y = own + _blocks.crop_like(up(y), own)
        for up, size in zip(self.ups[-2:], (maps[0], x), strict=True):
            y = _blocks.crop_like(up(y), size)
        logits = self.scores(y)
        if not self.training or not self.semantic:
            return logits
        return Output(logits, (*(head(maps) for head in self.semantic), self.scores(resolved)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet with its blocks moved, embeddings, large kernels on maps of strides 4 to 32, the way up."""
    dims, norm = spatial_dims, config.norm
    trunk = resnet(
        dims, in_channels, config.depth, width=config.width, norm=norm, blocks=config.blocks, groups=config.groups
    )
    views = out_channels * config.window**dims
    width, scores = config.channels or views, nn.Sequential(Adjacent(config.window))
    if config.channels:
        scores.insert(0, _blocks.conv(dims, width, views))
    channels = trunk.channels[1:]
    embeddings = [Embedding(dims, fine, channels[n + 1 :]) for n, fine in enumerate(channels)]
    kernels = [LargeKernel(dims, fine, width, config.k) for fine in channels]
    ups = [BilinearUp(dims, width, 2) for _ in channels]
    semantic = [fcn_head(dims, n, trunk.channels[n], out_channels, norm=norm) for n in range(1, 4 if config.aux else 1)]
    resolve = dense_upsampling(dims, width, width, 2)
    model = _blocks.initialise(ExFuse(trunk, embeddings, kernels, resolve, ups, scores, semantic))
    for embedding in embeddings:
        embedding.begin()
    return model
