"""Attention among the voxels of a map and among its channels. Each takes a map and keeps its size.

Memory in 3D: nothing holds a weight for each pair of voxels of a large map. Where every voxel looks at all others, these are
averaged to at most `KEYS` first (`thinned`); lines are short by themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._blocks import NormName
from medseg.models._resizing import global_mean, mean_to

KEYS = 4096  # voxels that are looked at: all of a 2D map of 64 x 64, or of a volume 16 an axis


def attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """softmax(scale * queries keys^T) values, of `(B, N, d)`, `(B, M, d)` and `(B, M, c)` to `(B, N, c)`."""
    answer = F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None], scale=scale)
    return answer[:, 0]


def thinned(x: Tensor, limit: int = KEYS) -> Tensor:
    """A map of at most so many elements: itself, or its means over the smallest cubes that do."""
    size, cube = x.shape[2:], 1
    while math.prod(-(-n // cube) for n in size) > limit:
        cube += 1
    return x if cube == 1 else mean_to(x, tuple(-(-n // cube) for n in size))


def listed(x: Tensor) -> Tensor:
    """A map `(B, C, *spatial)` as a list of its voxels `(B, N, C)`."""
    return x.flatten(2).transpose(1, 2)


def squeeze_excite(
    dims: int, channels: int, width: int, *, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid
) -> nn.Module:
    """Channels weighted by what the whole image says of them (Hu, Shen, Sun 2018, arXiv:1709.01507, equations 2 to 4)."""
    return Gated(_blocks.conv(dims, channels, width, 1), act(), _blocks.conv(dims, width, channels, 1), gate())


class Gated(nn.Sequential):
    """A map times what its parts make of its mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(global_mean(x))


class Gate(nn.Module):
    """Additive attention, skip * sigmoid(psi(relu(W_g g + W_x skip))): one weight a voxel, from 0 to 1 (Attention U-Net,
    Oktay et al. 2018, arXiv:1804.03999, equations 1 and 2).

    Args:
        dims: spatial axes.
        channels: of the skip and of the gating map, which have the same size.
        width: channels in which the two are compared.
        norm: normalisation after each of the three 1x1 convolutions.
    """

    def __init__(self, dims: int, channels: int, width: int, norm: NormName) -> None:
        super().__init__()

        def project(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(_blocks.conv(dims, inputs, outputs, 1), _blocks.norm(norm, outputs))

        self.gating, self.skip, self.psi = project(channels, width), project(channels, width), project(width, 1)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        agreement = (self.gating(gating) + self.skip(skip)).relu()  # (B, width, *spatial)
        return skip * self.psi(agreement).sigmoid()  # the weights are (B, 1, *spatial)


class NonLocal(nn.Module):
    """x + W softmax(theta(x) phi(x)^T) g(x): each voxel adds what those that are like it say.

    Wang, Girshick, Gupta, He 2018, Non-local neural networks, arXiv:1711.07971, equations 1 to 6, embedded Gaussian. W ends in a
    normalisation whose scale begins at 0, so that the block begins as the identity.
    """

    def __init__(self, dims: int, channels: int, width: int, *, norm: NormName = "batch", keys: int = KEYS) -> None:
        super().__init__()
        self.keys = keys
        self.theta, self.phi, self.g = (_blocks.conv(dims, channels, width, 1) for _ in range(3))
        last = _blocks.norm(norm, channels)
        self.w = nn.Sequential(_blocks.conv(dims, width, channels, 1), last)
        for scale in list(last.parameters())[:1]:  # none without normalisation
            nn.init.zeros_(scale)

    def forward(self, x: Tensor) -> Tensor:
        few = thinned(x, self.keys)
        seen = attend(listed(self.theta(x)), listed(self.phi(few)), listed(self.g(few)))  # (B, N, width)
        return x + self.w(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


class PositionAttention(nn.Module):
    """x + alpha * attention over the voxels; alpha begins at 0 (DANet, Fu et al. 2019, arXiv:1809.02983, equations 1 and 2)."""

    def __init__(self, dims: int, channels: int, width: int, *, keys: int = KEYS) -> None:
        super().__init__()
        self.keys = keys
        self.query, self.key = (_blocks.conv(dims, channels, width, 1) for _ in range(2))
        self.value = _blocks.conv(dims, channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        few = thinned(x, self.keys)
        seen = attend(listed(self.query(x)), listed(self.key(few)), listed(self.value(few)))  # (B, N, C)
        return x + self.alpha * seen.transpose(1, 2).unflatten(2, x.shape[2:])


class ChannelAttention(nn.Module):
    """x + beta * attention over the channels, to those that are unlike; beta begins at 0 (DANet, equations 3 and 4).

    As in the authors' code, similarities count from the greatest downward: softmax(max - x x^T).
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)  # (B, C, N)
        alike = flat @ flat.transpose(1, 2)  # (B, C, C)
        weights = (alike.amax(-1, keepdim=True) - alike).softmax(-1)
        return x + self.beta * (weights @ flat).unflatten(2, x.shape[2:])


class CrissCross(nn.Module):
    """x + gamma * attention over the voxels that share all coordinates but one; gamma begins at 0.

    Huang et al. 2019, CCNet, arXiv:1811.11721, equations 1 and 2: in 2D a row and a column. In 3D three lines, and applied three
    times instead of twice it reaches everywhere. Weights: voxels times the sum of the sizes.
    """

    def __init__(self, dims: int, channels: int, width: int) -> None:
        super().__init__()
        self.query, self.key = (_blocks.conv(dims, channels, width, 1) for _ in range(2))
        self.value = _blocks.conv(dims, channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        axes, size = range(x.ndim - 2), x.shape[2:]
        alike = []
        for axis in axes:
            line = _lines(query, axis) @ _lines(key, axis).transpose(-1, -2)  # (B, *others, n, n)
            if axis:  # the voxel itself lies on each line and counts once
                line = line.masked_fill(torch.eye(size[axis], dtype=torch.bool, device=x.device), -math.inf)
            alike.append(line.movedim(-2, axis + 1))  # (B, *spatial, n)
        weights = torch.cat(alike, -1).softmax(-1).split(list(size), -1)
        seen = [
            (w.movedim(axis + 1, -2) @ _lines(value, axis)).movedim(-2, axis + 1)
            for axis, w in zip(axes, weights, strict=True)
        ]
        return x + self.gamma * sum(seen[1:], seen[0]).movedim(-1, 1)


def _lines(x: Tensor, axis: int) -> Tensor:
    """A map `(B, C, *spatial)` as lines along an axis: `(B, *others, n, C)`."""
    return x.movedim(1, -1).movedim(axis + 1, -2)
