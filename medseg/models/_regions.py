"""Attention to few things that stand for many voxels: bases, and the regions of classes. Memory: voxels times these few."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._attention import attend, listed
from medseg.models._backbones import Trunk
from medseg.models._blocks import NormName
from medseg.models._convs import finished, unit
from medseg.models._pyramids import Join


class EMAttention(nn.Module):
    """A map rebuilt from few bases, which expectation and maximisation find anew in each image.

    Li et al. 2019, EMANet, arXiv:1907.13426, algorithm 1 and 3.3: the bases that an image begins from are a moving mean over
    the training images.

    Args:
        dims: spatial axes.
        channels: of the map.
        bases: their number.
        steps: of expectation and maximisation, without gradients but for the last rebuilding.
        momentum: share of the former bases that a training step keeps.
        norm: at the end.
    """

    mu: Tensor

    def __init__(
        self,
        dims: int,
        channels: int,
        bases: int = 64,
        steps: int = 3,
        momentum: float = 0.9,
        *,
        norm: NormName = "batch",
    ) -> None:
        super().__init__()
        self.steps, self.momentum = steps, momentum
        self.register_buffer("mu", F.normalize(torch.randn(1, channels, bases), dim=1))
        self.first = _blocks.conv(dims, channels, channels, 1)
        self.last = unit(dims, channels, channels, 1, norm=norm, act=None)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.first(x).flatten(2)  # (B, C, N)
        with torch.no_grad():
            bases = self.mu.expand(len(x), -1, -1)
            for _ in range(self.steps):
                shares = (flat.transpose(1, 2) @ bases).softmax(2)  # (B, N, K)
                bases = F.normalize(flat @ (shares / (shares.sum(1, keepdim=True) + 1e-6)), dim=1)
            if self.training:
                mean = F.normalize(bases.mean(0, keepdim=True).to(self.mu), dim=1)
                self.mu.lerp_(mean, 1 - self.momentum)
        shares = (flat.transpose(1, 2) @ bases).softmax(2)
        rebuilt = (bases @ shares.transpose(1, 2)).unflatten(2, x.shape[2:])
        return (x + self.last(rebuilt.relu())).relu()


class ObjectContext(nn.Module):
    """What each voxel learns of the classes' regions, beside its own map: object-contextual representations (OCR).

    Yuan, Chen, Wang 2020, arXiv:1909.11065, equations 2 to 4. Few things are looked at: one region a class.

    Args:
        dims: spatial axes.
        channels: of the map, and of the answer.
        width: channels in which voxels and regions are compared.
        dropout: of the answer, 0 to 1.
        norm: after each convolution.
    """

    def __init__(
        self, dims: int, channels: int, width: int, *, dropout: float = 0.05, norm: NormName = "batch"
    ) -> None:
        super().__init__()

        def points(inputs: int, *outputs: int) -> nn.Sequential:
            ends = zip((inputs, *outputs), outputs, strict=False)
            return nn.Sequential(*(unit(dims, before, after, 1, norm=norm) for before, after in ends))

        self.query, self.key = points(channels, width, width), points(channels, width, width)
        self.value, self.back = points(channels, width), points(width, channels)
        self.join = nn.Sequential(points(2 * channels, channels), nn.Dropout(dropout))

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        """Args: the map, and coarse scores of the classes `(B, K, *spatial)` of its size."""
        regions = scores.flatten(2).softmax(2) @ listed(x)  # (B, K, C): each class's mean where it is likely
        regions = regions.transpose(1, 2).reshape(*x.shape[:2], -1, *[1] * (x.ndim - 3))  # (B, C, K, 1), as a map
        query, key, value = listed(self.query(x)), listed(self.key(regions)), listed(self.value(regions))
        seen = attend(query, key, value, query.shape[2] ** -0.5)  # (B, N, width)
        context = self.back(seen.transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.join(torch.cat((context, x), dim=1))


class Regions(nn.Module):
    """A trunk, coarse scores of its joined maps, and with these a representation of each voxel with object context (OCR, figure 3).

    Args:
        dims: spatial axes.
        trunk: from the image to maps.
        channels: of the voxels' and of the regions' representations; half of them where these are compared.
        outputs: of the coarse scores.
        dropout: of what is represented, 0 to 1.
        norm: after each convolution but that of the scores.
    """

    def __init__(
        self, dims: int, trunk: Trunk, channels: int, outputs: int, *, dropout: float = 0.05, norm: NormName = "batch"
    ) -> None:
        super().__init__()
        total = sum(trunk.channels)
        mixed = finished(_blocks.conv(dims, total, total, 1), total, norm)
        self.trunk, self.join = trunk, Join()
        self.coarse = nn.Sequential(mixed, _blocks.conv(dims, total, outputs, 1))
        self.voxels = finished(_blocks.conv(dims, total, channels), channels, norm)
        self.context = ObjectContext(dims, channels, max(channels // 2, 1), dropout=dropout, norm=norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The representation and the coarse scores, both at the size of the trunk's finest map."""
        joined = self.join(self.trunk(x))
        coarse = self.coarse(joined)
        return self.context(self.voxels(joined), coarse), coarse
