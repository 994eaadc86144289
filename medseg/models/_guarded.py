"""A way around faults of torch 2.13 on CPUs: convolutions that read memory which nobody wrote, now and then beyond it.

Their maps or gradients are wrong by any amount, or the process ends:

- where a kernel is longer than its map along some axis: the gradient of the weights, in bfloat16 with nearly every kernel, in float32
  with those of 7x7x7;
- where a stride leaves one element along an axis, mostly in bfloat16: the map, or the gradient of what a transposed one was given.

Such maps are common enough (a single slice, the coarsest level of a flat patch), and small. So these are computed in float32, with the
padding laid around the map before, or cut off behind, and without the stride that nothing follows. What AMX does wrong besides is
left out by `medseg/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_INTO = {4: F.conv2d, 5: F.conv3d}
_OUT_OF = {4: F.conv_transpose2d, 5: F.conv_transpose3d}


class _Into(nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        if _unasked(self, input) or _sound(self, input.shape[2:], _sizes(self, input)):
            plain: Tensor = super().forward(input)
            return plain
        around = [amount for size in reversed(_numbers(self.padding)) for amount in (size, size)]
        whole, strides = F.pad(input, around), list(self.stride)
        for axis, (size, span) in enumerate(zip(_sizes(self, input), _spans(self), strict=True)):
            if size == 1:
                whole, strides[axis] = whole.narrow(axis + 2, 0, span), 1
        return _in_float32(_INTO[input.ndim], self, whole, strides, 0, self.dilation, self.groups)


class _OutOf(nn.modules.conv._ConvTransposeNd):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        sizes = input.shape[2:]
        grown = [size * stride for size, stride in zip(sizes, self.stride, strict=True)]
        if output_size is not None or _unasked(self, input) or _sound(self, grown, sizes):
            plain: Tensor = super().forward(input, output_size)
            return plain
        ways = zip(sizes, self.stride, self.output_padding, strict=True)
        strides = [1 if size == 1 and not more else stride for size, stride, more in ways]
        how = (strides, 0, self.output_padding, self.groups, self.dilation)
        whole = _in_float32(_OUT_OF[input.ndim], self, input, *how)
        for axis, size in enumerate(_numbers(self.padding), start=2):
            whole = whole.narrow(axis, size, whole.shape[axis] - 2 * size)
        return whole


class Conv2d(_Into, nn.Conv2d):
    """Of images, thin ones too."""


class Conv3d(_Into, nn.Conv3d):
    """Of volumes, thin ones too."""


class _ConvTranspose2d(_OutOf, nn.ConvTranspose2d):
    """Of images, thin ones too."""


class _ConvTranspose3d(_OutOf, nn.ConvTranspose3d):
    """Of volumes, thin ones too."""


_GUARDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.ConvTranspose2d: _ConvTranspose2d,
    nn.ConvTranspose3d: _ConvTranspose3d,
}


def guard(model: nn.Module) -> nn.Module:
    """Make all convolutions of a model safe, whoever built them; weights and their names stay as they are."""
    for part in model.modules():
        part.__class__ = _GUARDED.get(type(part), type(part))
    return model


def _unasked(layer: nn.modules.conv._ConvNd, input: Tensor) -> bool:
    """Whether nothing can go wrong, or nothing be done about it."""
    if torch.compiler.is_exporting() or input.device.type != "cpu" or input.ndim == len(layer.kernel_size) + 1:
        return True
    return layer.padding_mode != "zeros" or isinstance(layer.padding, str)


def _sound(layer: nn.modules.conv._ConvNd, large: Sequence[int], small: Sequence[int]) -> bool:
    """Whether torch computes a layer rightly between a larger and a smaller map of these sizes."""
    ways = zip(large, small, _spans(layer), layer.stride, strict=True)
    return all(span <= size and (stride == 1 or less > 1) for size, less, span, stride in ways)


def _sizes(layer: nn.modules.conv._ConvNd, input: Tensor) -> list[int]:
    """Of the map that comes out."""
    ways = zip(input.shape[2:], _numbers(layer.padding), _spans(layer), layer.stride, strict=True)
    return [(size + 2 * padding - span) // stride + 1 for size, padding, span, stride in ways]


def _spans(layer: nn.modules.conv._ConvNd) -> list[int]:
    """Elements from one end of the kernel to the other, along each axis."""
    return [gap * (k - 1) + 1 for gap, k in zip(layer.dilation, layer.kernel_size, strict=True)]


def _in_float32(convolve: Callable[..., Tensor], layer: nn.modules.conv._ConvNd, input: Tensor, *how: Any) -> Tensor:
    """In single precision at least; what comes out has the precision that was asked for."""
    asked = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
    parts = (input, layer.weight, layer.bias)
    given = [part if part is None else part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts]
    with torch.autocast("cpu", enabled=False):
        found = convolve(*given, *how)
    return found if found.dtype == torch.float64 else found.to(asked)


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str)  # `_unasked` lets those pass
    return padding
