"""Context: what lets each voxel see far, by pooling, dilation and large kernels. Each takes a map and keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName
from medseg.models._convs import Residual, ahead, separable, unit
from medseg.models._resizing import global_mean, mean_to, resize_like


class PyramidPooling(nn.Module):
    """The map, and its means over grids of several sizes, joined (Zhao et al. 2017, arXiv:1612.01105, 3.2).

    Each mean is taken to `inputs / len(bins)` channels: the answer has about twice the channels of the input, `self.outputs`.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        *,
        norm: NormName = "batch",
        width: int | None = None,
    ) -> None:
        super().__init__()
        width = width or max(inputs // len(bins), 1)
        self.bins, self.outputs = tuple(bins), inputs + width * len(bins)
        self.convs = nn.ModuleList([unit(dims, inputs, width, 1, norm=norm) for _ in bins])

    def forward(self, x: Tensor) -> Tensor:
        means = [conv(mean_to(x, bins)) for bins, conv in zip(self.bins, self.convs, strict=True)]
        return torch.cat([x, *(resize_like(mean, x) for mean in means)], dim=1)


class ImagePooling(nn.Module):
    """What the whole image says, at every voxel: the mean of each channel, a unit of 1x1, repeated."""

    def __init__(self, dims: int, inputs: int, outputs: int, *, norm: NormName = "batch") -> None:
        super().__init__()
        self.conv = unit(dims, inputs, outputs, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(global_mean(x)).expand(-1, -1, *x.shape[2:])


class Summed(nn.Module):
    """Branches that see the same map; the sum of their maps."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (branch(x) for branch in self.branches)
        return sum(others, first)


class SumASPP(Summed):
    """Scores of 3x3 convolutions of several dilations, summed (DeepLab v2, Chen et al. 2018, arXiv:1606.00915, figure 7)."""

    def __init__(self, dims: int, inputs: int, outputs: int, rates: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__([_blocks.conv(dims, inputs, outputs, dilation=rate) for rate in rates])


class ASPP(nn.Sequential):
    """1x1, 3x3 of several dilations and the image's mean, joined and taken to `outputs` channels (DeepLab v3, 3.3).

    Args:
        dims: spatial axes.
        inputs: channels of the map.
        outputs: of each branch and of the whole.
        rates: dilations of the 3x3 branches.
        image: with the branch of the image's mean.
        split: 3x3 convolutions are separable (DeepLab v3+, Chen et al. 2018, arXiv:1802.02611).
        dropout: at the end, 0 to 1.
        norm: after each convolution.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        *,
        image: bool = True,
        split: bool = False,
        dropout: float = 0.5,
        norm: NormName = "batch",
    ) -> None:
        kind = separable if split else unit
        branches: list[nn.Module] = [unit(dims, inputs, outputs, 1, norm=norm)]
        branches += [kind(dims, inputs, outputs, dilation=rate, norm=norm) for rate in rates]
        branches += [ImagePooling(dims, inputs, outputs, norm=norm)] if image else []
        project = unit(dims, outputs * len(branches), outputs, 1, norm=norm)
        super().__init__(Joined(branches), project, nn.Dropout(dropout))


class Joined(nn.Module):
    """Branches that see the same map; their maps side by side."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class DenseASPP(nn.Module):
    """Dilated layers of which each sees the map and all layers before it (Yang et al. 2018, DenseASPP, CVPR, equation 3).

    Each is a 1x1 convolution to `width` channels and a 3x3 one to `growth`, with normalisation and rectifier ahead of both, as in
    the authors' code; the map, which comes rectified, needs none. The answer has `self.outputs` channels.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        width: int = 256,
        growth: int = 64,
        rates: Sequence[int] = (3, 6, 12, 18, 24),
        *,
        dropout: float = 0.1,
        norm: NormName = "batch",
    ) -> None:
        super().__init__()
        self.outputs = inputs + growth * len(rates)
        self.layers = nn.ModuleList()
        for n, rate in enumerate(rates):
            narrow = ahead(dims, inputs + n * growth, width, 1, norm=norm)
            wide = ahead(dims, width, growth, dilation=rate, norm=norm)
            self.layers.append(nn.Sequential(narrow if n else narrow[2:], wide, _blocks.dropout(dims, dropout)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), dim=1)
        return x


class LargeKernel(Summed):
    """A kernel of k voxels an axis by lines of k: along each axis in turn, in every cyclic order, summed.

    Peng et al. 2017, Large kernel matters, arXiv:1703.02719, 3.1: (k x 1, 1 x k) + (1 x k, k x 1); in 3D three orders.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, k: int = 15) -> None:
        lines = [tuple(k if n == axis else 1 for n in range(dims)) for axis in range(dims)]
        branches = []
        for start in range(dims):
            first, *others = lines[start:] + lines[:start]
            after = [_blocks.conv(dims, outputs, outputs, line) for line in others]
            branches.append(nn.Sequential(_blocks.conv(dims, inputs, outputs, first), *after))
        super().__init__(branches)


def boundary_refinement(dims: int, channels: int) -> nn.Module:
    """The map and a correction of two 3x3 convolutions (Large kernel matters, figure 2 C)."""
    body = nn.Sequential(_blocks.conv(dims, channels, channels), nn.ReLU(), _blocks.conv(dims, channels, channels))
    return Residual(body)


def residual_conv_unit(dims: int, channels: int) -> nn.Module:
    """RCU: rectifier and 3x3 convolution, twice, and the way past them (RefineNet, Lin et al. 2017, arXiv:1611.06612, 3.2)."""
    layers = [part for _ in range(2) for part in (nn.ReLU(), _blocks.conv(dims, channels, channels))]
    return Residual(nn.Sequential(*layers))


class ChainedPooling(nn.Module):
    """Chained residual pooling: each step pools (5x5, stride 1) and convolves the last one's map; all are summed (RefineNet, 3.2)."""

    def __init__(self, dims: int, channels: int, steps: int = 2) -> None:
        super().__init__()
        pool = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
        self.steps = nn.ModuleList(
            [nn.Sequential(pool(5, 1, 2), _blocks.conv(dims, channels, channels)) for _ in range(steps)]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        total = x
        for step in self.steps:
            x = step(x)
            total = total + x
        return total


@torch.no_grad()
def begin_small(part: nn.Module) -> None:
    """Let residual branches that nothing normalises begin at a fifth of their scale: each full one would double the variance."""
    for branch in part.modules():
        if isinstance(branch, Residual | ChainedPooling):
            for weight in branch.parameters():
                weight.mul_(0.2)
