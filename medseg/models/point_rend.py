"""PointRend: coarse scores, and a small head that is asked again at the points where they are unsure.

In training the head's scores stand in the full image at some unsure and some random voxels, the rest is interpolated, so that any loss
trains both. In evaluation the scores are doubled in size step by step, and each time the least sure are replaced.

Family: boundary
Paper: Kirillov, Wu, He, Girshick 2020, PointRend: image segmentation as rendering, arXiv:1912.08193

Presets:
    resnet50: DeepLab v3 of stride 16 with ResNet-50; fine features of stride 4, a head of three layers of 256 (section 4.2).
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, Trunk
from medseg.models._blocks import Output, Positive, Share, Times
from medseg.models._context import ASPP
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._resizing import resize_like
from medseg.models._segmenter import Pick

_OVERSAMPLED = 3  # k of section 3.3: candidates for a point
_UNSURE = 0.75  # beta: the share of points that are chosen from them


class Config(Options):
    """Options of a PointRend, besides those of `_dilated.Options`.

    Args:
        stride: of the coarse scores, 8, 16 or 32.
        channels: of the context before the coarse scores.
        rates: dilations of that context.
        hidden: channels of the head's layers.
        layers: of the head, before its scores.
        points: as many at a time as a map of this stride has elements.
        norm: after each convolution; the head has none.
        dropout: share of values dropped before the coarse scores, 0 to 1.
        aux: in training also the coarse scores.
    """

    stride: OutputStride = 16
    channels: Positive = 256
    rates: tuple[Positive, ...] = (6, 12, 18)
    hidden: Positive = 256
    layers: Times = 3
    points: Positive = 16
    dropout: Share = 0.5


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(
        depth=10, width=1 / 16, stride=8, channels=8, rates=(2, 4), hidden=8, layers=2, points=4, dropout=0.1
    ),
}


class PointHead(nn.Module):
    """Layers that see one point each: fine features, and the coarse scores anew before every layer.

    Args:
        fine: channels of the features.
        classes: channels of coarse and new scores.
        hidden: channels of each layer.
        layers: before the scores.
    """

    def __init__(self, fine: int, classes: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [fine, *[hidden] * layers]
        self.layers = nn.ModuleList(nn.Conv1d(n + classes, hidden, 1) for n in widths[:-1])
        self.scores = nn.Conv1d(hidden + classes, classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        for layer in self.layers:
            fine = layer(torch.cat([fine, coarse], 1)).relu()
        return self.scores(torch.cat([fine, coarse], 1))


class PointRend(nn.Module):
    """Coarse scores and their refinement.

    Args:
        trunk: maps; the second one has the fine features.
        coarse: from all maps to coarse scores.
        head: from features and coarse scores of points to their scores.
        stride: of the coarse scores.
        points: stride of the map that has as many elements as points are taken at a time.
        aux: in training, give the coarse scores too.
    """

    def __init__(
        self, trunk: Trunk, coarse: nn.Module, head: PointHead, *, stride: int, points: int, aux: bool
    ) -> None:
        super().__init__()
        self.trunk, self.coarse, self.head = trunk, coarse, head
        self.stride, self.points, self.aux = stride, points, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        coarse, size = self.coarse(maps), x.shape[2:]
        count = math.prod([-(-n // self.points) for n in size])  # a list: torch.compile takes no generator
        if self.training:
            logits = resize_like(coarse, x)
            logits = self._asked(logits, _drawn(logits, count), coarse, maps[1])
            return Output(logits, (coarse,)) if self.aux else logits
        logits = coarse
        for level in reversed(range(self.stride.bit_length() - 1)):
            finer = x.new_empty(1, 1, *[-(-n // 2**level) for n in size])
            logits = resize_like(logits, finer)
            least_sure = _unsure(logits).topk(min(count, finer.numel())).indices
            logits = self._asked(logits, least_sure, coarse, maps[1])
        return logits

    def _asked(self, logits: Tensor, where: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Logits whose elements at some places `(B, P)`, counted along the last axis first, are the head's."""
        points = centres(where, logits.shape[2:])
        new = self.head(sampled(fine, points), sampled(coarse, points)).to(logits.dtype)
        places = where[:, None].expand(-1, logits.shape[1], -1)
        return logits.flatten(2).scatter(2, places, new).unflatten(2, logits.shape[2:])


def _unsure(logits: Tensor) -> Tensor:
    """How little the best class leads before the second, `(B, elements)`; of a single class, how near 0 it is."""
    if logits.shape[1] == 1:
        return -logits[:, 0].abs().flatten(1)
    best = logits.topk(2, dim=1).values
    return (best[:, 1] - best[:, 0]).flatten(1)


def _drawn(logits: Tensor, count: int) -> Tensor:
    """The least sure of random elements, and random ones (section 3.3)."""
    unsure, chosen = _unsure(logits.detach()), math.ceil(_UNSURE * count)
    batch, elements = unsure.shape
    candidates = torch.randint(elements, (batch, _OVERSAMPLED * count), device=logits.device)
    best = unsure.gather(1, candidates).topk(chosen).indices
    others = torch.randint(elements, (batch, count - chosen), device=logits.device)
    return torch.cat([candidates.gather(1, best), others], 1)


def centres(where: Tensor, size: Sequence[int]) -> Tensor:
    """Centres of elements of a grid, `(B, P, axes)`, as shares of its extent."""
    axes: list[Tensor] = []
    for n in reversed(size):
        axes.insert(0, (where % n + 0.5) / n)
        where = where // n
    return torch.stack(axes, -1)


def sampled(x: Tensor, points: Tensor) -> Tensor:
    """A map's values at points, `(B, C, P)`, linearly between elements and constant beyond the outermost, as in `resize_like`."""
    size = torch.tensor(x.shape[2:], device=x.device)
    place = (points * size - 0.5).clamp(min=0).minimum(size - 1.0)
    low = place.floor().long()
    share, found = place - low, torch.zeros((), device=x.device)
    for corner in itertools.product((0, 1), repeat=len(size)):
        upper = torch.tensor(corner, device=x.device)
        index, weight = (low + upper).minimum(size - 1), torch.where(upper == 1, share, 1 - share).prod(-1)
        flat = index[..., 0]
        for axis in range(1, len(size)):
            flat = flat * x.shape[2 + axis] + index[..., axis]
        found = found + weight[:, None] * x.flatten(2).gather(2, flat[:, None].expand(-1, x.shape[1], -1))
    return found


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, ASPP for coarse scores, and the head."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config)
    coarse = nn.Sequential(
        Pick(-1),
        ASPP(dims, trunk.channels[-1], width, config.rates, dropout=config.dropout, norm=norm),
        unit(dims, width, width, norm=norm),
        _blocks.conv(dims, width, out_channels, 1),
    )
    head = PointHead(trunk.channels[1], out_channels, config.hidden, config.layers)
    net = PointRend(trunk, coarse, head, stride=config.stride, points=config.points, aux=config.aux)
    return _blocks.initialise(net)
