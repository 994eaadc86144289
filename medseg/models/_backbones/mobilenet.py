"""Networks of inverted residuals: narrow maps, widened only for a convolution of each channel by itself.

Sandler et al. 2018, MobileNetV2, arXiv:1801.04381, table 2; Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244,
table 1; Tan, Le 2019, EfficientNet, arXiv:1905.11946, table 1. Classifiers are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from medseg.models._attention import squeeze_excite
from medseg.models._backbones._trunk import Pace, Trunk, scaled, steady
from medseg.models._blocks import NormName
from medseg.models._convs import Act, Residual, relu, unit


@dataclass(frozen=True)
class Row:
    """One inverted residual: kernel, channels within and after, and of the squeeze, if any; rectifier, stride."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: int = 0
    act: Act = nn.ReLU6
    stride: int = 1


def inverted(
    dims: int, inputs: int, row: Row, *, stride: int, dilation: int, widen: bool, gate: type[nn.Module], norm: NormName
) -> nn.Module:
    """1x1 up, each channel by itself, squeeze-and-excitation, 1x1 down; and the way past where nothing changes size."""
    hidden = row.hidden if widen else inputs
    body = nn.Sequential(*([unit(dims, inputs, hidden, 1, norm=norm, act=row.act)] if widen else []))
    body.append(
        unit(dims, hidden, hidden, row.kernel, stride, dilation=dilation, groups=hidden, norm=norm, act=row.act)
    )
    if row.squeeze:
        act = nn.SiLU if row.act is nn.SiLU else nn.ReLU
        body.append(squeeze_excite(dims, hidden, row.squeeze, act=act, gate=gate))
    body.append(unit(dims, hidden, row.outputs, 1, norm=norm, act=None))
    return Residual(body) if row.stride == 1 and inputs == row.outputs else body


def _trunk(
    dims: int,
    inputs: int,
    first: tuple[int, Act],
    rows: Sequence[Row],
    last: tuple[int, Act] | None,
    *,
    width: float,
    norm: NormName,
    output_stride: int,
    gate: type[nn.Module] = nn.Sigmoid,
) -> Trunk:
    """A map for each resolution that the rows mean to have: the last before the next step down."""
    pace, (channel, act) = Pace(output_stride), first
    stage = unit(dims, inputs, scaled(channel, width), 3, pace.step(2), norm=norm, act=act)
    before, stages, channels, strides = channel, [], [], []
    for row in rows:
        if row.stride == 2:
            stages.append(stage)
            channels.append(scaled(before, width))
            strides.append(pace.stride)
            stage = nn.Sequential()
        rate, stride = pace.dilation, pace.step(row.stride)
        narrow = replace(row, hidden=scaled(row.hidden, width), outputs=scaled(row.outputs, width))
        if row.squeeze:
            narrow = replace(narrow, squeeze=scaled(row.squeeze, width))
        how: dict[str, Any] = {"stride": stride, "dilation": rate, "widen": row.hidden != before, "gate": gate}
        stage.append(inverted(dims, scaled(before, width), narrow, norm=norm, **how))
        before = row.outputs
    if last:
        stage.append(unit(dims, scaled(before, width), scaled(last[0], width), 1, norm=norm, act=last[1]))
        before = last[0]
    return Trunk([*stages, stage], [*channels, scaled(before, width)], [*strides, pace.stride])


def mobilenet_v2(
    dims: int, inputs: int, *, width: float = 1.0, norm: NormName = "batch", output_stride: int = 32
) -> Trunk:
    """Five maps of 16, 24, 32, 96 and 320 channels, strides 2 to 32."""
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    rows, before = [], 32
    for expansion, channel, repeats, stride in table:
        for n in range(repeats):
            rows.append(Row(3, expansion * before, channel, stride=1 if n else stride))
            before = channel
    return _trunk(dims, inputs, (32, nn.ReLU6), rows, None, width=width, norm=norm, output_stride=output_stride)


def mobilenet_v3(
    dims: int, inputs: int, *, width: float = 1.0, norm: NormName = "batch", output_stride: int = 32
) -> Trunk:
    """MobileNetV3-Large: five maps of 16, 24, 40, 112 and 960 channels, strides 2 to 32."""
    swish = nn.Hardswish
    rows = [
        Row(3, 16, 16, 0, relu),
        Row(3, 64, 24, 0, relu, 2),
        Row(3, 72, 24, 0, relu),
        Row(5, 72, 40, 24, relu, 2),
        *[Row(5, 120, 40, 32, relu)] * 2,
        Row(3, 240, 80, 0, swish, 2),
        Row(3, 200, 80, 0, swish),
        *[Row(3, 184, 80, 0, swish)] * 2,
        Row(3, 480, 112, 120, swish),
        Row(3, 672, 112, 168, swish),
        Row(5, 672, 160, 168, swish, 2),
        *[Row(5, 960, 160, 240, swish)] * 2,
    ]
    how: dict[str, Any] = {"width": width, "norm": norm, "output_stride": output_stride, "gate": nn.Hardsigmoid}
    return steady(_trunk(dims, inputs, (16, swish), rows, (960, swish), **how))


def efficientnet_b0(
    dims: int, inputs: int, *, width: float = 1.0, norm: NormName = "batch", output_stride: int = 32
) -> Trunk:
    """Five maps of 16, 24, 40, 112 and 320 channels, strides 2 to 32."""
    table = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    rows, before = [], 32
    for expansion, channel, repeats, stride, kernel in table:
        for n in range(repeats):
            rows.append(Row(kernel, expansion * before, channel, before // 4, nn.SiLU, 1 if n else stride))
            before = channel
    return _trunk(dims, inputs, (32, nn.SiLU), rows, None, width=width, norm=norm, output_stride=output_stride)
