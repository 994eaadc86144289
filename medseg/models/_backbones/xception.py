"""Xception: residual blocks of separable convolutions.

Chollet 2017, arXiv:1610.02357; with strides in place of poolings and more depth, Chen et al. 2018 (DeepLab v3+), arXiv:1802.02611,
figure 4; with 39 layers, Yu et al. 2018 (BiSeNet), arXiv:1808.00897.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models._backbones._trunk import Pace, Trunk, scaled, steady
from medseg.models._blocks import NormName
from medseg.models._convs import Residual, separable, sliding_max, unit

MIDDLE = {41: 8, 65: 16}  # blocks of the middle flow


def _ahead(dims: int, inputs: int, outputs: int, stride: int, dilation: int, norm: NormName) -> nn.Sequential:
    """Rectifier, then each channel by itself and all at each voxel, normalised."""
    return nn.Sequential(
        nn.ReLU(),
        unit(dims, inputs, inputs, 3, stride, dilation=dilation, groups=inputs, norm=norm, act=None),
        unit(dims, inputs, outputs, 1, norm=norm, act=None),
    )


class _Early(Residual):
    """What the body has before its last convolution, which has the stride, and the sum."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        early = x
        *before, last = self.body.children()
        for part in before:
            early = part(early)
        return early, last(early) + self.past(x)


class _Xception(Trunk):
    """A trunk of which a stage may give two maps: the first of them takes the place of the stage's before, of the same size.

    The decoder of DeepLab v3+ sees the last map of stride 4, "before striding" (4.1): it lies within the second block.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            if isinstance(x, tuple):
                maps[-1], x = x
            maps.append(x)
        return tuple(maps)


def _block(
    dims: int,
    inputs: int,
    widths: Sequence[int],
    norm: NormName,
    stride: int = 1,
    dilation: int = 1,
    kind: type[Residual] = Residual,
) -> nn.Module:
    """Three separable convolutions, of which the last has the stride, and the way past them."""
    body = nn.Sequential()
    before = inputs
    for n, width in enumerate(widths):
        body.append(_ahead(dims, before, width, stride if n == 2 else 1, dilation, norm))
        before = width
    same = inputs == before and stride == 1
    return kind(body, None if same else unit(dims, inputs, before, 1, stride, norm=norm, act=None))


def xception(
    dims: int,
    inputs: int,
    depth: int = 65,
    *,
    width: float = 1.0,
    norm: NormName = "batch",
    output_stride: int = 16,
) -> Trunk:
    """Five maps of 64, 256, 256, 728 and 2048 channels, strides 2, 4, 8, 16 and, where the output stride allows, 32.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        depth: 41 or 65.
        width: of all stages.
        norm: after each convolution.
        output_stride: 8, 16 or 32.
    """
    pace = Pace(output_stride)
    a, b, c, d, e, f, g, h = (scaled(n, width) for n in (32, 64, 128, 256, 728, 1024, 1536, 2048))
    stages: list[nn.Module] = [
        nn.Sequential(unit(dims, inputs, a, 3, pace.step(2), norm=norm), unit(dims, a, b, norm=norm))
    ]
    strides = [pace.stride]
    for before, after in ((b, c), (c, d), (d, e)):
        rate, stride = pace.dilation, pace.step(2)
        kind = _Early if len(stages) == 2 else Residual
        stages.append(nn.Sequential(_block(dims, before, (after,) * 3, norm, stride, rate, kind)))
        strides.append(pace.stride)
    middle = [_block(dims, e, (e,) * 3, norm, dilation=pace.dilation) for _ in range(MIDDLE[depth])]
    stages[-1] = nn.Sequential(stages[-1], *middle)
    rate, stride = pace.dilation, pace.step(2)
    end = nn.Sequential(_block(dims, e, (e, f, f), norm, stride, rate))
    for before, after in ((f, g), (g, g), (g, h)):
        end.append(separable(dims, before, after, dilation=pace.dilation, norm=norm))
    return steady(_Xception([*stages, end], (b, d, d, e, h), [*strides, pace.stride]))


def xception39(dims: int, inputs: int, *, width: float = 1.0, norm: NormName = "batch") -> Trunk:
    """Four maps of 8, 64, 128 and 256 channels, strides 2, 8, 16 and 32, without a map of stride 4."""
    before = scaled(8, width)
    stages, channels = [unit(dims, inputs, before, 3, 2, norm=norm)], [before]
    for index, (channel, repeats) in enumerate(((16, 4), (32, 8), (64, 4))):
        narrow = scaled(channel, width)
        stage = nn.Sequential(sliding_max(dims, 2)) if index == 0 else nn.Sequential()
        for n in range(repeats):
            stage.append(_block(dims, before, (narrow, narrow, 4 * narrow), norm, 1 if n else 2))
            before = 4 * narrow
        stages.append(stage)
        channels.append(before)
    return Trunk(stages, channels, (2, 8, 16, 32))
