"""The parts that architectures share, written once for 2D and 3D, and the rules that make any input size fit.

A size is halved by rounding up (`ceil(n / stride)`) and doubled by growing and cropping at the far end, so that voxel 0 stays
voxel 0 at every level and an odd size costs nothing: no multiple is needed, and nothing is padded at the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.models import _guarded

Size = int | tuple[int, ...]
NormName = Literal["none", "instance", "batch", "group"]
ActivationName = Literal["relu", "leaky_relu", "prelu"]


def _odd(size: Size) -> Size:
    if any(k % 2 == 0 for k in ((size,) if isinstance(size, int) else size)):
        raise ValueError(f"expected odd numbers, so that a convolution keeps the size; got {size}")
    return size


# Types of options: one number, or one an axis.
Positive = Annotated[int, Field(ge=1)]
Times = Annotated[int, Field(ge=1, le=100)]  # that something is repeated
PerAxis = Positive | tuple[Positive, ...]
Kernel = Annotated[PerAxis, AfterValidator(_odd)]
Width = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]  # of a trunk, against the published one
Share = Annotated[float, Field(ge=0, lt=1)]  # 0 for none


def check_lengths(expected: int, **lists: Sequence[Any]) -> None:
    """See that a model's lists fit each other: one item a stage, or one a step between stages.

    Raises:
        ValueError: a list of another length, or none expected; pydantic makes the user's message of it.
    """
    for name, items in lists.items():
        if len(items) != expected or not items:
            raise ValueError(f"expected {max(expected, 1)} item(s) in {name}, to fit the number of stages; got {items}")


class Output(NamedTuple):
    """What a model may return in training mode.

    Args:
        logits: `(B, K, *spatial)`, of the input's size.
        auxiliary: logits `(B, K, *coarser)`, finest first; axis n of stride s has `ceil(n / s)` elements.
        boundary: logits `(B, 1, *any)` of where classes meet, from networks that look for that too: loss `dual_task` trains them.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    boundary: Tensor | None = None


def ntuple(value: Size, n: int) -> tuple[int, ...]:
    """An integer repeated n times, or a sequence of n integers as it is.

    Raises:
        ConfigError: a sequence of another length.
    """
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) != n:
        raise ConfigError(f"model: expected one number or {n} of them, one an axis, got {values}")
    return values


def conv(
    dims: int,
    inputs: int,
    outputs: int,
    kernel: Size = 3,
    stride: Size = 1,
    *,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A convolution that keeps the size, or divides it by the stride and rounds up. Kernels are odd."""
    sizes, rates = ntuple(kernel, dims), ntuple(dilation, dims)
    padding = tuple(rate * (k // 2) for rate, k in zip(rates, sizes, strict=True))
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    return layer(inputs, outputs, sizes, ntuple(stride, dims), padding, rates, groups, bias)  # type: ignore[arg-type]


class _ChannelsLast2d(_guarded.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _with_channels_last(super().forward, x, torch.channels_last)


class _ChannelsLast3d(_guarded.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return _with_channels_last(super().forward, x, torch.channels_last_3d)


def _with_channels_last(convolve: Callable[[Tensor], Tensor], x: Tensor, layout: torch.memory_format) -> Tensor:
    return convolve(x.contiguous(memory_format=layout)).contiguous() if x.device.type == "cpu" else convolve(x)


def narrow_conv(dims: int, inputs: int, outputs: int, kernel: Size = 3, *, bias: bool = True) -> nn.Module:
    """`conv` for a handful of channels, in and out, at full resolution: the same function, weights and names of weights.

    On a CPU it takes half the time, forward and back, in fp32 and bf16, 2D and 3D, because it computes with channels last
    (torch 2.13 has no quick way in the usual layout where channels are not multiples of 16). It gives maps in the usual
    layout, for the other layers are slower in this one.
    """
    sizes = ntuple(kernel, dims)
    layer = _ChannelsLast2d if dims == 2 else _ChannelsLast3d
    return layer(inputs, outputs, sizes, padding=tuple(k // 2 for k in sizes), bias=bias)  # type: ignore[arg-type]


def transposed(
    dims: int, inputs: int, outputs: int, stride: Size = 2, kernel: Size | None = None, *, bias: bool = True
) -> nn.Module:
    """A transposed convolution that multiplies the size by its stride.

    Without a kernel, the stride is the kernel: each element becomes a block, and blocks do not overlap. With an odd kernel they
    do, and element n of the input lies in the middle of the kernel at element n * stride of the output.
    """
    strides = ntuple(stride, dims)
    layer = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    if kernel is None:
        return layer(inputs, outputs, strides, strides, bias=bias)  # type: ignore[arg-type]
    sizes = ntuple(kernel, dims)
    padding, extra = tuple(k // 2 for k in sizes), tuple(s - 1 for s in strides)
    return layer(inputs, outputs, sizes, strides, padding, extra, bias=bias)  # type: ignore[arg-type]


def upsample(dims: int, stride: Size = 2, *, linear: bool = False) -> nn.Module:
    """Repeats each element over a block of the stride, or goes linearly from one to the next."""
    mode = {2: "bilinear", 3: "trilinear"}[dims] if linear else "nearest"
    return nn.Upsample(scale_factor=tuple(map(float, ntuple(stride, dims))), mode=mode)


class Fill(nn.Module):
    """Repeats the far edge of a map until whole blocks of the stride fill each axis."""

    def __init__(self, dims: int, stride: Size) -> None:
        super().__init__()
        self.stride = ntuple(stride, dims)

    def forward(self, x: Tensor) -> Tensor:
        missing = [-size % block for size, block in zip(x.shape[2:], self.stride, strict=True)]
        far_ends = [amount for last_first in reversed(missing) for amount in (0, last_first)]
        return F.pad(x, far_ends, mode="replicate") if any(missing) else x


def strided(dims: int, inputs: int, outputs: int, stride: Size = 2, *, bias: bool = True) -> nn.Module:
    """A convolution whose kernel is its stride: each block becomes an element."""
    sizes = ntuple(stride, dims)
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(Fill(dims, stride), layer(inputs, outputs, sizes, sizes, bias=bias))  # type: ignore[arg-type]


def max_pool(dims: int, stride: Size = 2) -> nn.Module:
    """Maximum over blocks of the stride."""
    return nn.Sequential(Fill(dims, stride), (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(ntuple(stride, dims)))


def mean_pool(dims: int, stride: Size = 2) -> nn.Module:
    """Mean over blocks of the stride."""
    layer = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
    return nn.Sequential(Fill(dims, stride), layer(ntuple(stride, dims)))  # type: ignore[arg-type]


def crop_like(x: Tensor, reference: Tensor) -> Tensor:
    """Cut the far ends of x's spatial axes to the reference's size."""
    for axis in range(2, x.ndim):
        x = x.narrow(axis, 0, reference.shape[axis])
    return x


def join(skip: Tensor, x: Tensor) -> Tensor:
    """Skip connection by concatenation: skip's channels first, x cropped to its size."""
    return torch.cat((skip, crop_like(x, skip)), dim=1)


class _GroupNorm(nn.GroupNorm):
    """Group normalisation that leaves a single element as it is: it has no spread to divide by."""

    def forward(self, x: Tensor) -> Tensor:
        if x[0].numel() == self.num_groups:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            return x * self.weight.view(shape) + self.bias.view(shape)
        return super().forward(x)


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of maps of any dimension that uses the running figures where a batch has a single element."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of spatial axes."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def norm(name: NormName, channels: int) -> nn.Module:
    """A normalisation with scale and shift per channel; a map of one element passes through it without error.

    Instance normalisation is written as one group a channel, which is the same function and quicker on a CPU. "group" takes
    groups of 8 channels, or the nearest smaller number that divides the channels.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return _BatchNorm(channels)
    size = 1 if name == "instance" else next(n for n in range(8, 0, -1) if channels % n == 0)
    return _GroupNorm(channels // size, channels)


def activation(name: ActivationName, channels: int) -> nn.Module:
    """A rectifier: plain, leaky (slope 0.01) or with a learned slope per channel."""
    if name == "prelu":
        return nn.PReLU(channels)
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(0.01, inplace=True)


def dropout(dims: int, rate: float) -> nn.Module:
    """Dropout of whole channels, which neighbouring voxels cannot fill in; nothing at rate 0."""
    return (nn.Dropout2d if dims == 2 else nn.Dropout3d)(rate) if rate else nn.Identity()


def initialise(model: nn.Module) -> nn.Module:
    """He initialisation of all convolutions, zero for their biases: keeps the scale of activations without normalisation.

    He et al. 2015, Delving deep into rectifiers; the U-Net paper's rule too (section 3). A transposed convolution is followed
    by no rectifier, and each of its outputs sums over the input channels once: variance 1 / inputs.
    """
    for part in model.modules():
        if not isinstance(part, nn.modules.conv._ConvNd):
            continue
        if part.transposed:
            nn.init.normal_(part.weight, std=part.in_channels**-0.5)
        else:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    return model
