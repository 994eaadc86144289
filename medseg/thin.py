"""A way around a fault of torch 2.13 on CPUs: bfloat16 convolutions whose kernel is longer than their map along some axis.

The gradients of their weights are read from memory that nobody wrote (now and then beyond it, which ends the process), and where a
grouped one has its channels last, its values too. Such maps are small: a single slice, the coarsest level of a flat patch.
They are computed in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INTO = (torch.conv1d, torch.conv2d, torch.conv3d)
_OUT_OF = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


def in_full(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Inside, and in the way back if that is inside too, thin maps are convolved in float32; nothing changes on other devices."""
    return _InFull() if device.type == "cpu" else contextlib.nullcontext()


class _InFull(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if (function not in _INTO and function not in _OUT_OF) or not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        if not _is_thin(*args, **kwargs, transposed=function in _OUT_OF):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return function(*map(_whole, args), **{name: _whole(value) for name, value in kwargs.items()})


def _is_thin(input: Tensor, weight: Tensor, *rest: Any, transposed: bool, **named: Any) -> bool:
    """Whether the kernel is longer than the larger of both maps; the arguments are those of torch's convolutions."""
    order = ("bias", "stride", "padding", *(("output_padding", "groups", "dilation") if transposed else ("dilation",)))
    given = dict(zip(order, rest, strict=False)) | named
    steps, apart = (_each(given.get(name, 1), input.ndim - 2) for name in ("stride", "dilation"))
    sizes = [n * step if transposed else n for n, step in zip(input.shape[2:], steps, strict=True)]
    spans = [gap * (k - 1) + 1 for gap, k in zip(apart, weight.shape[2:], strict=True)]
    return any(span > size for span, size in zip(spans, sizes, strict=True))


def _each(value: int | Sequence[int], axes: int) -> Sequence[int]:
    return value if isinstance(value, Sequence) else (value,) * axes


def _whole(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
