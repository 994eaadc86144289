"""What all losses share: the base class, which brings any output and any target into one form, and that form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.losses._context import LossContext
from medseg.settings import Settings

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Options(Settings):
    """Options of every loss.

    Args:
        activation: "softmax" where classes exclude each other, "sigmoid" where they may overlap (or for one channel).
        ignore_index: target value of voxels that count nowhere; with memberships, a voxel is left out where any channel has it.
        class_weights: one number an output channel, background included; None weighs all alike.
    """

    activation: Literal["softmax", "sigmoid"] = "softmax"
    ignore_index: int = -1
    class_weights: tuple[Weight, ...] | None = None


class OverlapOptions(Options):
    """Options of losses that compare regions rather than voxels.

    Args:
        include_background: count channel 0 as a structure too. With "sigmoid" there is no background, and all channels count.
        batch: sum regions over the batch before comparing, instead of sample by sample: steadier where structures are
            absent from many patches. Processes that train together share a batch.
        smooth: added above and below the fraction bar, so that a structure absent from both counts as a perfect match;
            with 0 such a structure is a perfect match by decision.
    """

    include_background: bool = False
    batch: bool = False
    smooth: Weight = 1e-5


@dataclass(frozen=True, eq=False)
class Level:
    """A batch at one resolution, in the form that formulas use.

    Args:
        logits: `(B, K, *spatial)`, float32 or float64.
        truth: `(B, K, *spatial)` in 0 to 1, in the type of the logits (a bool would be converted at each use); 0 where
            ignored.
        valid: `(B, 1, *spatial)` in the type of the logits, 0 where ignored, else 1; None when every voxel counts.
        weights: `(K,)`, the class weights.
        exclusive: classes exclude each other (softmax).
        spacing_mm: distance between voxel centres along each spatial axis; 1 where unknown.
        context: as given by the caller.
    """

    logits: Tensor
    truth: Tensor
    valid: Tensor | None
    weights: Tensor
    exclusive: bool
    spacing_mm: tuple[float, ...]
    context: LossContext

    @cached_property
    def log_p(self) -> Tensor:
        """Logarithm of the probabilities, `(B, K, *spatial)`."""
        return F.log_softmax(self.logits, 1) if self.exclusive else F.logsigmoid(self.logits)

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, `(B, K, *spatial)`; their logarithm is a quicker way to them where it is known already."""
        if "log_p" in self.__dict__:
            return self.log_p.exp()
        return self.logits.softmax(1) if self.exclusive else self.logits.sigmoid()

    @cached_property
    def log_not_p(self) -> Tensor:
        """Logarithm of 1 - p, `(B, K, *spatial)`, exact where p rounds to 1."""
        if not self.exclusive:
            return F.logsigmoid(-self.logits)
        top = self.logits.argmax(1, keepdim=True)
        others = self.log_p.scatter(1, top, -torch.inf)
        return torch.log1p(-others.exp()).scatter(1, top, others.logsumexp(1, keepdim=True))

    @cached_property
    def not_truth(self) -> Tensor:
        """1 - truth, and 0 where ignored, `(B, K, *spatial)`."""
        return self.keep(1 - self.truth)

    @cached_property
    def true(self) -> Tensor:
        """Sum of the truth by sample and class, `(B, K)`."""
        return self.truth.flatten(2).sum(2)

    @cached_property
    def voxels(self) -> Tensor:
        """Number of voxels that count, at least 1."""
        count = self.logits[:, 0].numel() if self.valid is None else self.valid.sum()
        return torch.as_tensor(count, dtype=self.logits.dtype, device=self.logits.device).clamp(min=1)

    def keep(self, values: Tensor) -> Tensor:
        """Values `(B, K, *spatial)` with 0 where ignored."""
        return values if self.valid is None else values * self.valid


C = TypeVar("C", bound=Options)


class Loss(nn.Module, ABC, Generic[C]):
    """A loss on logits and targets. It does all that losses share; a particular one adds `term`.

    Auxiliary outputs of a model (deep supervision) are compared with the target at their own resolution and weigh 1/2,
    1/4, ... of the full one, all weights summing to 1. Arithmetic is in float32 at least, inside autocast too. A batch
    without a single voxel that counts has the loss's value for nothing to compare, and zero gradients.
    """

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def term(self, level: Level) -> Tensor:
        """The loss at one resolution, a scalar."""

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            output: logits `(B, K, *spatial)`, or an object with `logits` and `auxiliary` (lower resolutions, finest first).
            target: integers `(B, *spatial)`, or memberships `(B, K, *spatial)` in 0 to 1.
            context: facts about the batch.

        Returns:
            A scalar tensor.

        Raises:
            ConfigError: shapes, classes, weights and activation do not fit together.
        """
        levels = (output.logits, *output.auxiliary) if hasattr(output, "auxiliary") else (output,)
        target, context = _channels(target, levels[0]), context or LossContext()
        with torch.autocast(target.device.type, enabled=False):
            terms = torch.stack([self.term(self._level(logits, target, context)) for logits in levels])
            shares = 0.5 ** torch.arange(len(levels), dtype=terms.dtype, device=terms.device)
            return (terms * shares).sum() / shares.sum()

    def _level(self, logits: Tensor, target: Tensor, context: LossContext) -> Level:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        full, size = target.shape[2:], logits.shape[2:]
        target = _nearest(target, size)
        _check(logits, target, self.config)
        truth = _memberships(target, logits)
        counts = (target != self.config.ignore_index).all(1, keepdim=True)
        complete = counts.is_cpu and bool(counts.all())  # asking an accelerator would make the host wait for it
        valid = None if complete else counts.to(logits)
        spacing = (context.spacing_mm or (1.0,) * len(size))[: len(size)]
        return Level(
            logits,
            truth if valid is None else truth * valid,
            valid,
            torch.as_tensor(self.config.class_weights or (1.0,) * logits.shape[1]).to(logits),
            self.config.activation == "softmax",
            tuple(s * a / b for s, a, b in zip(spacing, full, size, strict=True)),
            context,
        )


def _channels(target: Tensor, logits: Tensor) -> Tensor:
    """The target with a channel axis: one of classes, or K of memberships."""
    batch, channels, *size = logits.shape
    if target.shape == (batch, *size):
        return target.unsqueeze(1)
    if target.shape == logits.shape:
        return target
    wanted = f"{(batch, *size)} (classes) or {(batch, channels, *size)} (memberships)"
    raise ConfigError(f"logits {tuple(logits.shape)} need a target {wanted}, got {tuple(target.shape)}")


def _nearest(target: Tensor, size: torch.Size) -> Tensor:
    """The target `(B, C, *spatial)` at the voxels nearest to those of a coarser grid."""
    for axis, (old, new) in enumerate(zip(target.shape[2:], size, strict=True), 2):
        if old != new:
            centres = (torch.arange(new, device=target.device) + 0.5) * old / new
            target = target.index_select(axis, centres.long())
    return target


def _memberships(target: Tensor, logits: Tensor) -> Tensor:
    """Truth `(B, K, *spatial)` in 0 to 1."""
    if target.shape[1] != logits.shape[1]:
        classes = torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)
        target = target == classes.view(-1, *(1,) * (target.ndim - 2))
    return target.to(logits.dtype)


def _check(logits: Tensor, target: Tensor, config: Options) -> None:
    channels = logits.shape[1]
    if config.activation == "softmax" and channels == 1:
        raise ConfigError("softmax over one channel is always 1: use activation: sigmoid, or two output channels")
    if config.activation == "sigmoid" and target.shape[1] != channels:
        raise ConfigError(f"activation: sigmoid needs a target with one channel a structure, (B, {channels}, *spatial)")
    if config.class_weights is not None and len(config.class_weights) != channels:
        raise ConfigError(f"class_weights needs {channels} numbers, one a channel, got {len(config.class_weights)}")
    if target.is_cpu:
        last, highest = (1 if target.shape[1] == channels else channels - 1), target.max().item()
        if highest > last and highest != config.ignore_index:
            raise ConfigError(f"the target holds {highest:g}, but 0 to {last} is what {channels} output channels allow")
