"""HRNet: streams of several resolutions side by side, which exchange what they found.

Wang et al. 2020, Deep high-resolution representation learning for visual recognition, arXiv:1908.07919, figures 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from medseg.models._backbones._trunk import Trunk, scaled
from medseg.models._backbones.resnet import basic, bottleneck
from medseg.models._blocks import NormName
from medseg.models._convs import unit
from medseg.models._resizing import resize_like

HRNetSize = Literal["w18_small_v1", "w18_small_v2", "w18", "w32", "w48"]


class Size(NamedTuple):
    """Channels of the finest stream; modules of stages 2 to 4; blocks of a stream in a module; those of stage 1, their width within."""

    channels: int
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    first: int = 4
    within: int = 64


SIZES = {
    "w18_small_v1": Size(16, (1, 1, 1), 2, 1, 32),  # the authors' own names, and channels
    "w18_small_v2": Size(18, (1, 3, 2), 2, 2),
    "w18": Size(18),
    "w32": Size(32),
    "w48": Size(48),
}


class Streams(nn.Module):
    """A part for each stream; streams beyond the given ones begin from the coarsest of these."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [part(maps[min(n, len(maps) - 1)]) for n, part in enumerate(self.parts)]


class Fusion(nn.Module):
    """What one stream becomes: the rectified sum of all, each by its path and brought to the stream's size."""

    def __init__(self, target: int, paths: Sequence[nn.Module]) -> None:
        super().__init__()
        self.target, self.paths = target, nn.ModuleList(paths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        own = maps[self.target]
        first, *others = (resize_like(path(x), own) for path, x in zip(self.paths, maps, strict=True))
        return sum(others, first).relu()


class Exchange(nn.Module):
    """All streams from all."""

    def __init__(self, fusions: Sequence[Fusion]) -> None:
        super().__init__()
        self.fusions = nn.ModuleList(fusions)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [fusion(maps) for fusion in self.fusions]


class HRNet(Trunk):
    """The trunk of given parts: its stages after the first take and give lists of maps."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first, *others = self.stages
        maps: list[Tensor] = [first(x)]
        for stage in others:
            maps = stage(maps)
        return tuple(maps)


def hrnet(dims: int, inputs: int, size: HRNetSize = "w18", *, width: float = 1.0, norm: NormName = "batch") -> HRNet:
    """Four maps of strides 4 to 32, with one, two, four and eight times the channels of the finest stream.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        size: "w18", "w32", "w48"; "w18_small_v1" and "w18_small_v2" have few blocks.
        width: of all streams, 1 for those in the size's name.
        norm: after each convolution.
    """
    base, modules, blocks, begin, within = SIZES[size]
    stem, wide = scaled(64, width), 4 * scaled(within, width)
    first = nn.Sequential(unit(dims, inputs, stem, 3, 2, norm=norm), unit(dims, stem, stem, 3, 2, norm=norm))
    first.extend([bottleneck(dims, wide if n else stem, wide, norm=norm) for n in range(begin)])
    channels, before = [scaled(base * 2**n, width) for n in range(4)], [wide]
    stages: list[nn.Module] = [first]
    for streams, count in zip((2, 3, 4), modules, strict=True):
        now = channels[:streams]
        stage = nn.Sequential(_begin(dims, before, now, norm))
        for _ in range(count):
            stage.append(Streams([nn.Sequential(*[basic(dims, c, c, norm=norm) for _ in range(blocks)]) for c in now]))
            stage.append(_exchange(dims, now, norm))
        stages.append(stage)
        before = now
    return HRNet(stages, channels, (4, 8, 16, 32))


def _begin(dims: int, before: Sequence[int], now: Sequence[int], norm: NormName) -> Streams:
    """A further stream, by a stride from the coarsest; given ones stay, or get their channels."""
    kept = [
        nn.Identity() if old == new else unit(dims, old, new, norm=norm) for old, new in zip(before, now, strict=False)
    ]
    return Streams([*kept, unit(dims, before[-1], now[-1], 3, 2, norm=norm)])


def _exchange(dims: int, channels: Sequence[int], norm: NormName) -> Exchange:
    def path(source: int, target: int) -> nn.Module:
        inputs, outputs = channels[source], channels[target]
        if source == target:
            return nn.Identity()
        if source > target:
            return unit(dims, inputs, outputs, 1, norm=norm, act=None)
        steps = [unit(dims, inputs, inputs, 3, 2, norm=norm) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, unit(dims, inputs, outputs, 3, 2, norm=norm, act=None))

    streams = range(len(channels))
    return Exchange([Fusion(target, [path(source, target) for source in streams]) for target in streams])
