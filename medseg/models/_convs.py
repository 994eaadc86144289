"""Convolutions with what follows them: the small units of which trunks and heads are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Size

Act = Callable[[], nn.Module] | None
relu = partial(nn.ReLU, inplace=True)


def unit(
    dims: int,
    inputs: int,
    outputs: int,
    kernel: Size = 3,
    stride: Size = 1,
    *,
    dilation: Size = 1,
    groups: int = 1,
    norm: NormName = "batch",
    act: Act = relu,
) -> nn.Sequential:
    """Convolution, normalisation, rectifier. The convolution has a bias where no normalisation follows."""
    layer = _blocks.conv(dims, inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=norm == "none")
    return finished(layer, outputs, norm, act)


def ahead(
    dims: int, inputs: int, outputs: int, kernel: Size = 3, *, dilation: Size = 1, norm: NormName = "batch"
) -> nn.Sequential:
    """Normalisation, rectifier, convolution: the order of dense networks. The map itself is not written to."""
    conv = _blocks.conv(dims, inputs, outputs, kernel, dilation=dilation, bias=norm == "none")
    return nn.Sequential(_blocks.norm(norm, inputs), nn.ReLU(inplace=norm != "none"), conv)


def finished(layer: nn.Module, outputs: int, norm: NormName, act: Act = relu) -> nn.Sequential:
    """A layer, and the normalisation and rectifier that it has."""
    parts = [layer, *([_blocks.norm(norm, outputs)] if norm != "none" else []), *([act()] if act else [])]
    return nn.Sequential(*parts)


def separable(
    dims: int,
    inputs: int,
    outputs: int,
    kernel: Size = 3,
    stride: Size = 1,
    *,
    dilation: Size = 1,
    norm: NormName = "batch",
    act: Act = relu,
) -> nn.Sequential:
    """A convolution of each channel by itself, then one of all channels at each voxel; both are complete units."""
    each = unit(dims, inputs, inputs, kernel, stride, dilation=dilation, groups=inputs, norm=norm, act=act)
    return nn.Sequential(each, unit(dims, inputs, outputs, 1, norm=norm, act=act))


def sliding_max(dims: int, stride: int = 1) -> nn.Module:
    """Maximum over 3 elements an axis, every one or every so many: blocks overlap, unlike those of `_blocks.max_pool`."""
    return (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, stride, 1)


class Residual(nn.Module):
    """The sum of a body and a way past it, rectified or not."""

    def __init__(self, body: nn.Module, past: nn.Module | None = None, act: Act = None) -> None:
        super().__init__()
        self.body, self.past = body, past or nn.Identity()
        self.end = act() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x) + self.past(x))


class DenseLayer(nn.Module):
    """The maps so far, and those that the body makes of them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.body(x)), dim=1)
