"""WideResNet-38: fewer and wider residual blocks, rectified before each convolution.

Wu, Shen, van den Hengel 2016, Wider or deeper: revisiting the ResNet model, arXiv:1611.10080, table 1, model A.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones._trunk import Pace, Trunk, scaled
from medseg.models._blocks import NormName
from medseg.models._convs import relu, sliding_max

# Blocks of the stages, and channels of their convolutions: two of 3x3, or 1x1, 3x3, 1x1.
STAGES = (
    (3, (128, 128)),
    (3, (256, 256)),
    (6, (512, 512)),
    (3, (512, 1024)),
    (1, (512, 1024, 2048)),
    (1, (1024, 2048, 4096)),
)


class Preactivated(nn.Module):
    """x + body(first(x)), where the way past starts after `first` if it changes size or channels."""

    def __init__(self, first: nn.Module, body: nn.Module, past: nn.Module | None) -> None:
        super().__init__()
        self.first, self.body, self.past = first, body, past

    def forward(self, x: Tensor) -> Tensor:
        ready = self.first(x)
        return self.body(ready) + (x if self.past is None else self.past(ready))


def wide_resnet38(
    dims: int,
    inputs: int,
    *,
    width: float = 1.0,
    blocks: int | None = None,
    norm: NormName = "batch",
    output_stride: int = 8,
) -> Trunk:
    """Six maps of 64, 128, 256, 512, 1024 and 4096 channels, strides 1, 2, 4, 8 and, where the output stride allows, 16 and 32.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        width: of all stages.
        blocks: of each stage at most: 1 for the smallest of its kind.
        norm: before each convolution.
        output_stride: 8, 16 or 32: later strides become dilations.
    """
    channel, pace = scaled(64, width), Pace(output_stride)
    stages: list[nn.Sequential] = [nn.Sequential(_blocks.conv(dims, inputs, channel, bias=norm == "none"))]
    channels, strides = [channel], [pace.stride]
    for index, (count, full) in enumerate(STAGES):
        widths = tuple(scaled(n, width) for n in full)
        rate, stride = pace.dilation, pace.step(2) if index < 5 else 1
        stage = nn.Sequential(sliding_max(dims, stride)) if index < 2 else nn.Sequential()
        for n in range(min(count, blocks or count)):
            begins = n == 0 and index >= 2
            step, first = (stride, rate) if begins else (1, pace.dilation)
            stage.append(_block(dims, channel, widths, step, (first, pace.dilation), norm))
            channel = widths[-1]
        if index == 5:
            stages[-1].extend([*stage, _blocks.norm(norm, channel), relu()])
            channels[-1] = channel
        else:
            stages.append(stage)
            channels.append(channel)
            strides.append(pace.stride)
    return Trunk(stages, channels, strides)


def _block(
    dims: int, inputs: int, widths: tuple[int, ...], stride: int, rates: tuple[int, int], norm: NormName
) -> nn.Module:
    kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
    strided = kernels.index(3)
    body, before = nn.Sequential(), inputs
    for n, (kernel, width) in enumerate(zip(kernels, widths, strict=True)):
        if n:
            body.extend([_blocks.norm(norm, before), relu()])
        step, rate = (stride, rates[0]) if n == strided else (1, rates[1] if kernel == 3 else 1)
        body.append(_blocks.conv(dims, before, width, kernel, step, dilation=rate, bias=norm == "none"))
        before = width
    first = nn.Sequential(_blocks.norm(norm, inputs), nn.ReLU(inplace=norm != "none"))
    same = inputs == before and stride == 1
    past = None if same else _blocks.conv(dims, inputs, before, 1, stride, bias=norm == "none")
    return Preactivated(first, body, past)
