"""Networks of MONAI as architectures of medseg: of any size, with deep supervision as `Output`, and with one line where MONAI is not installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medseg.errors import ConfigError
from medseg.models._blocks import Output, Size, crop_like, ntuple

# Normalisations as MONAI is told of them, with a scale and a shift as everywhere else.
NORMS: dict[str, Any] = {"instance": ("INSTANCE", {"affine": True}), "batch": ("BATCH", {"affine": True})}
NORMS["group"] = ("GROUP", {"num_groups": 8})
MonaiNorm = Literal["instance", "batch"]


def monai(part: str) -> ModuleType:
    """A module of `monai.networks`, imported when it is asked for.

    Raises:
        ConfigError: MONAI, or what its transformers need, is not installed.
    """
    try:
        importlib.import_module("einops")
        return importlib.import_module(f"monai.networks.{part}")
    except ImportError as error:
        raise ConfigError(
            f"model: this one is MONAI's and needs {error.name}, which is not installed. Run: pip install 'medseg[monai]'"
        ) from error


class Adapted(nn.Module):
    """A network that takes some sizes alone, for any size: the far edges are repeated, and what they gave is cut off.

    Args:
        net: gives logits of the size of its image, or in training a list of logits, finest first.
        dims: spatial axes.
        stride: each axis of what the network is given is a multiple of it. At least one has two of them: a coarsest map of
            one element has no spread for a normalisation to divide by.
    """

    def __init__(self, net: nn.Module, dims: int, stride: Size) -> None:
        super().__init__()
        self.net, self.stride = net, ntuple(stride, dims)

    def forward(self, x: Tensor) -> Tensor | Output:
        whole = _filled(x, self.stride)
        levels = self.net(whole)
        if isinstance(levels, Tensor):
            return crop_like(levels, x)
        logits, *auxiliary = levels
        return Output(crop_like(logits, x), tuple(_cut(level, whole, x) for level in auxiliary))


def _filled(x: Tensor, stride: Sequence[int]) -> Tensor:
    missing = [-size % block for size, block in zip(x.shape[2:], stride, strict=True)]
    if all(size <= block for size, block in zip(x.shape[2:], stride, strict=True)):
        missing[-1] += stride[-1]
    far_ends = [amount for last_first in reversed(missing) for amount in (0, last_first)]
    return nn.functional.pad(x, far_ends, mode="replicate") if any(missing) else x


def _cut(level: Tensor, whole: Tensor, x: Tensor) -> Tensor:
    """The elements of a coarser level that stand for voxels of the image."""
    for axis in range(2, x.ndim):
        stride = whole.shape[axis] // level.shape[axis]
        level = level.narrow(axis, 0, -(-x.shape[axis] // stride))
    return level


class Plain(TorchFunctionMode):
    """While networks are built: numbers that their makers ask back of `torch.linspace` are there on the meta device too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {}, **({"device": "cpu"} if func is torch.linspace else {}))
        return func(*args, **kwargs)
