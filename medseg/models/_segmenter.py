"""The skeleton: how a trunk, a head and auxiliary heads become a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk
from medseg.models._blocks import NormName, Output
from medseg.models._convs import unit
from medseg.models._resizing import resize_like


class Pick(nn.Module):
    """One of a trunk's maps, counted from the finest (0) or from the coarsest (-1): the first part of a head on one map."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[self.index]


class Segmenter(nn.Module):
    """A trunk's maps, a head that makes logits of them, and the way to the input's size.

    Args:
        trunk: from the image to maps, finest first.
        head: from all maps to logits of any size, which are then interpolated linearly.
        auxiliary: in training, further heads: from all maps to logits at their own resolution, finest first.
    """

    def __init__(self, trunk: Trunk, head: nn.Module, auxiliary: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.trunk, self.head, self.auxiliary = trunk, head, nn.ModuleList(auxiliary)

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        logits = resize_like(self.head(maps), x)
        return with_auxiliary(logits, self.auxiliary, [maps] * len(self.auxiliary))


def with_auxiliary(logits: Tensor, heads: nn.ModuleList, seen: Iterable[Any]) -> Tensor | Output:
    """Logits; in training, where there are auxiliary heads, also what each makes of what it sees, finest first."""
    if not heads.training or not heads:
        return logits
    return Output(logits, tuple(head(each) for head, each in zip(heads, seen, strict=True)))


def segmenter(
    dims: int, trunk: Trunk, head: nn.Module, outputs: int, *, norm: NormName, aux: bool = False, early: int = -2
) -> nn.Module:
    """Trunk and head with their first weights; with `aux`, in training also scores of an early map, the last but one."""
    auxiliary = [fcn_head(dims, early, trunk.channels[early], outputs, norm=norm)] if aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))


def fcn_head(
    dims: int, index: int, inputs: int, outputs: int, *, norm: NormName = "batch", dropout: float = 0.1
) -> nn.Sequential:
    """A 3x3 unit of a quarter of the channels, dropout, scores: the usual auxiliary head, on one of the trunk's maps."""
    width = max(inputs // 4, 1)
    scores = _blocks.conv(dims, width, outputs, 1)
    return nn.Sequential(Pick(index), unit(dims, inputs, width, norm=norm), nn.Dropout(dropout), scores)
