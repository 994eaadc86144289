"""Residual networks, plain or dilated.

He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition, arXiv:1512.03385, table 1; the stride of a bottleneck
is at its 3x3 convolution. Groups: Xie et al. 2017, arXiv:1611.05431, table 1. Dilated: Yu, Koltun, Funkhouser 2017, arXiv:1705.09914; multi-grid: Chen et al. 2017, arXiv:1706.05587, 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from medseg.models._backbones._trunk import Pace, Trunk, scaled
from medseg.models._blocks import NormName
from medseg.models._convs import Residual, relu, sliding_max, unit

ResNetDepth = Literal[10, 18, 34, 50, 101, 152]
# Blocks of the four stages; bottlenecks from 50 layers on. 10 is the smallest of Chen et al. 2019, Med3D, arXiv:1904.00625.
DEPTHS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
EXPANSION = 4


def basic(
    dims: int, inputs: int, outputs: int, *, stride: int = 1, rates: tuple[int, int] = (1, 1), norm: NormName = "batch"
) -> nn.Module:
    """Two 3x3 convolutions and the way past them; the rates are their dilations."""
    body = nn.Sequential(
        unit(dims, inputs, outputs, 3, stride, dilation=rates[0], norm=norm),
        unit(dims, outputs, outputs, 3, dilation=rates[1], norm=norm, act=None),
    )
    return Residual(body, shortcut(dims, inputs, outputs, stride, norm), relu)


def bottleneck(
    dims: int,
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    rates: tuple[int, int] = (1, 1),
    norm: NormName = "batch",
    groups: int = 1,
) -> nn.Module:
    """A 3x3 convolution of a quarter of the channels between two of 1x1, and the way past them; the first rate is its own.

    In groups it has half of the channels (ResNeXt).
    """
    width = outputs // (EXPANSION if groups == 1 else 2)
    body = nn.Sequential(
        unit(dims, inputs, width, 1, norm=norm),
        unit(dims, width, width, 3, stride, dilation=rates[0], groups=groups, norm=norm),
        unit(dims, width, outputs, 1, norm=norm, act=None),
    )
    return Residual(body, shortcut(dims, inputs, outputs, stride, norm), relu)


def shortcut(dims: int, inputs: int, outputs: int, stride: int, norm: NormName) -> nn.Module | None:
    """The input as it is, or by a 1x1 convolution where size or channels change."""
    return None if stride == 1 and inputs == outputs else unit(dims, inputs, outputs, 1, stride, norm=norm, act=None)


def stem(dims: int, inputs: int, width: int, norm: NormName, *, deep: bool) -> nn.Sequential:
    """Half the size: a 7x7 convolution, or three of 3x3 of which the last doubles the channels."""
    if not deep:
        return unit(dims, inputs, width, 7, 2, norm=norm)
    first = unit(dims, inputs, width, 3, 2, norm=norm)
    return nn.Sequential(first, unit(dims, width, width, norm=norm), unit(dims, width, 2 * width, norm=norm))


def resnet(
    dims: int,
    inputs: int,
    depth: int = 50,
    *,
    width: float = 1.0,
    norm: NormName = "batch",
    output_stride: int = 32,
    multi_grid: Sequence[int] = (),
    hybrid: Sequence[Sequence[int]] = (),
    deep_stem: bool = False,
    blocks: Sequence[int] = (),
    groups: int = 1,
    further: int = 0,
) -> Trunk:
    """Five maps: of the stem (stride 2) and of the four residual stages.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        depth: 10, 18, 34, 50, 101 or 152.
        width: of all stages, 1 for 64 channels after the stem.
        norm: after each convolution.
        output_stride: 8, 16 or 32: later strides become dilations, which begin after the convolution that had the stride.
        multi_grid: of the blocks of the last stage: what each multiplies the stage's dilation by, the first one's too.
        hybrid: of the last two stages, if any: dilations that their blocks take in turn (Wang et al. 2018, arXiv:1702.08502, 3.2).
        deep_stem: three 3x3 convolutions of 64, 64 and 128 channels in place of the 7x7.
        blocks: of the four stages, in place of those of the depth.
        groups: of the 3x3 convolutions of bottlenecks: 32 for a ResNeXt 32x4d.
        further: stages like the last one after it, each with its step, a map more each (Chen et al. 2017, 3.1).
    """
    pace, base = Pace(output_stride), scaled(64, width)
    block, expansion = (partial(bottleneck, groups=groups), EXPANSION) if depth >= 50 else (basic, 1)
    stages = [stem(dims, inputs, base, norm, deep=deep_stem)]
    channels, strides = [2 * base if deep_stem else base], [pace.step(2)]
    counts = tuple(blocks or DEPTHS[depth])
    for index, count in enumerate(counts + counts[-1:] * further):
        stage = nn.Sequential(sliding_max(dims, pace.step(2))) if index == 0 else nn.Sequential()
        before, stride = pace.dilation, pace.step(2) if index else 1
        rates = [(before, pace.dilation), *[(pace.dilation,) * 2] * (count - 1)]
        if multi_grid and index >= 3:
            rates = [(pace.dilation * multi_grid[n % len(multi_grid)],) * 2 for n in range(count)]
        if hybrid and index >= 2:
            turn = hybrid[index - 2]
            rates = [(turn[n % len(turn)],) * 2 for n in range(count)]
        outputs = base * 2 ** min(index, 3) * expansion
        for n, pair in enumerate(rates):
            step = stride if n == 0 else 1
            stage.append(block(dims, outputs if n else channels[-1], outputs, stride=step, rates=pair, norm=norm))
        stages.append(stage)
        channels.append(outputs)
        strides.append(pace.stride)
    return Trunk(stages, channels, strides)
