"""A way around a fault of torch 2.13 on CPUs: convolutions whose kernel is longer than their map along some axis.

Gradients of their weights are read from memory that nobody wrote, now and then beyond it, which ends the process: in bfloat16 with
nearly every kernel, in float32 with those of 7x7x7. Such maps are common enough: a single slice, the coarsest level of a flat patch.
Where the padding is laid around the map before, or cut off behind, the kernel is never the longer one, and all is well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_INTO = {4: F.conv2d, 5: F.conv3d}
_OUT_OF = {4: F.conv_transpose2d, 5: F.conv_transpose3d}


class _Into(nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        if _fits(self, input, input.shape[2:]):
            plain: Tensor = super().forward(input)
            return plain
        around = [amount for size in reversed(_numbers(self.padding)) for amount in (size, size)]
        convolve = _INTO[input.ndim]
        return convolve(F.pad(input, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _OutOf(nn.modules.conv._ConvTransposeNd):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        grown = [n * step for n, step in zip(input.shape[2:], self.stride, strict=True)]
        if output_size is not None or _fits(self, input, grown):
            plain: Tensor = super().forward(input, output_size)
            return plain
        convolve = _OUT_OF[input.ndim]
        how = (self.stride, 0, self.output_padding, self.groups, self.dilation)
        whole = convolve(input, self.weight, self.bias, *how)
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


def _fits(layer: nn.modules.conv._ConvNd, input: Tensor, sizes: Sequence[int]) -> bool:
    """Whether a kernel is not longer than the larger of its maps; where nothing can go wrong, nothing is asked."""
    if torch.compiler.is_exporting() or input.device.type != "cpu" or input.ndim == len(layer.kernel_size) + 1:
        return True
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return True
    spans = [gap * (k - 1) + 1 for gap, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    return all(span <= size for span, size in zip(spans, sizes, strict=True))


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str)  # `_fits` let those pass
    return padding
