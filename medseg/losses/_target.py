"""Targets of any form as memberships: their shape, their resolution, and what they may hold."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._options import Options


def with_channels(target: Tensor, logits: Tensor) -> Tensor:
    """The target with a channel axis: one of classes, or K of memberships.

    Raises:
        ConfigError: its shape is that of neither.
    """
    batch, channels, *size = logits.shape
    target = target.view(torch.uint8) if target.dtype == torch.bool else target
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
        ConfigError: classes, weights and activation do not fit together.
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
    last, ignored = channels - 1 if classes else 1, options.ignore_index
    lowest, highest = (value.item() for value in target.aminmax())
    all_counted = not lowest <= ignored <= highest
    if not 0 <= lowest <= highest <= last or (classes and target.is_floating_point()):
        odd = ~((target >= 0) & (target <= last)) | (classes & (target != target.round()))
        if len(odd := target[odd if all_counted else odd & (target != ignored)]):
            allowed = f"0 to {last} is what {channels} output channels allow, and ignore_index {ignored} for what does not count"
            raise ConfigError(f"the target holds {odd[0]:g}, but {allowed}")
    return all_counted
