"""Targets of any form as memberships: their shape, their resolution, and what they may hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._options import Options

_ROUNDING = 0.01  # by how much memberships, and their sums, may miss what they should be; half precision needs .004
_RARE = (torch.uint16, torch.uint32, torch.uint64)  # torch can do little with them


def real(value: Any, what: str) -> Tensor:
    """A tensor of real numbers.

    Raises:
        ConfigError: it is none: an array, a list, a number, or a tensor of complex numbers.
    """
    if not isinstance(value, Tensor):
        raise ConfigError(f"expected {what} as a torch tensor, got {type(value).__name__}: torch.as_tensor makes one")
    if value.is_complex():
        raise ConfigError(f"expected {what} of real numbers, got {value.dtype}")
    return value


def with_channels(target: Tensor, logits: Tensor) -> Tensor:
    """The target with a channel axis: one of classes, or K of memberships.

    Raises:
        ConfigError: they are no tensors, its shape is that of neither, or the logits hold no voxel.
    """
    target, logits = real(target, "a target"), real(logits, "logits")
    if logits.ndim < 3 or not logits.numel():
        raise ConfigError(f"expected logits (B, K, *spatial) of at least one voxel, got {tuple(logits.shape)}")
    batch, channels, *size = logits.shape
    target = target.view(torch.uint8) if target.dtype == torch.bool else target
    target = target.long() if target.dtype in _RARE else target
    if target.shape == (batch, *size):
        return target.unsqueeze(1)
    if target.shape == logits.shape:
        return target
    wanted = f"{(batch, *size)} (classes) or {(batch, channels, *size)} (memberships)"
    raise ConfigError(f"logits {tuple(logits.shape)} need a target {wanted}, got {tuple(target.shape)}")


def nearest(target: Tensor, size: torch.Size) -> Tensor:
    """The target `(B, C, *spatial)` at the voxels nearest to those of a coarser grid."""
    for axis, (old, new) in enumerate(zip(target.shape[2:], size, strict=True), 2):
        if old != new:
            centres = (torch.arange(new, device=target.device) + 0.5) * old / new
            target = target.index_select(axis, centres.long())
    return target


def memberships(target: Tensor, logits: Tensor) -> Tensor:
    """Truth `(B, K, *spatial)` in 0 to 1."""
    if target.shape[1] != logits.shape[1]:
        classes = torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)
        same = target == classes.view(-1, *(1,) * (target.ndim - 2))
        target = same.view(torch.uint8)  # bytes are converted four times as quickly as truth values
    return target.to(logits.dtype)


def all_count(logits: Tensor, target: Tensor, options: Options) -> bool:
    """Whether every voxel is known to count; an accelerator is not asked, for the host would have to wait for it.

    Raises:
        ConfigError: classes, memberships, weights and activation do not fit together.
    """
    channels, classes = logits.shape[1], target.shape[1] != logits.shape[1]
    if options.activation == "softmax" and channels == 1:
        raise ConfigError("softmax over one channel is always 1: use activation: sigmoid, or two output channels")
    if options.activation == "sigmoid" and classes:
        raise ConfigError(f"activation: sigmoid needs a target with one channel a structure, (B, {channels}, *spatial)")
    if options.class_weights is not None and len(options.class_weights) != channels:
        raise ConfigError(f"class_weights needs {channels} numbers, one a channel, got {len(options.class_weights)}")
    if not target.is_cpu:
        return False
    lowest, highest = (value.item() for value in target.aminmax())
    all_counted = not lowest <= options.ignore_index <= highest
    counted = None if all_counted else target != options.ignore_index
    last, slack = (channels - 1, 0.0) if classes else (1, _ROUNDING)
    if not -slack <= lowest <= highest <= last + slack or (classes and target.is_floating_point()):
        odd = ~((target >= -slack) & (target <= last + slack)) | (classes & (target != target.round()))
        if len(odd := target[odd if counted is None else odd & counted]):
            allowed = f"0 to {last} is what {channels} output channels allow, and ignore_index {options.ignore_index}"
            raise ConfigError(f"the target holds {odd[0]:g}, but {allowed} for what does not count")
    if options.activation == "softmax" and not classes:
        _sum_to_one(target, counted)
    return all_counted


def _sum_to_one(target: Tensor, counted: Tensor | None) -> None:
    """Raise where the memberships of a voxel, all of which count, are those of no share of classes."""
    sums = target.sum(1)
    odd = (sums - 1).abs() > _ROUNDING
    if len(odd := sums[odd if counted is None else odd & counted.all(1)]):
        raise ConfigError(
            f"memberships of a voxel sum to {odd[0]:g}, but with activation: softmax they are shares of 1: "
            "give what is left to the channel of background, or use activation: sigmoid where structures overlap"
        )
