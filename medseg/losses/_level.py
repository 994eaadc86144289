"""A batch at one resolution, in the one form that formulas use, whatever form its target has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._context import LossContext
from medseg.losses._options import Options
from medseg.losses._target import all_count, memberships, nearest, real


@dataclass(frozen=True, eq=False)
class Level:
    """A batch at one resolution.

    Args:
        logits: `(B, K, *spatial)`, float32 or float64.
        truth: `(B, K, *spatial)` in 0 to 1, in the type of the logits (a bool would be converted at each use); 0 where
            ignored.
        hard: every truth is 0 or 1, and with softmax one class a voxel.
        valid: `(B, 1, *spatial)` in the type of the logits, 0 where ignored, else 1; None when every voxel counts.
        weights: `(K,)`, the class weights.
        exclusive: classes exclude each other (softmax).
        spacing_mm: distance between voxel centres along each spatial axis; 1 where unknown.
        context: as given by the caller.
    """

    logits: Tensor
    truth: Tensor
    hard: bool
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
        if self.logits.shape[1] == 2:
            return self.log_p.flip(1)
        likely = self.p > 0.5  # one class a voxel at most; for the others 1 - p loses nothing
        others = self.log_p.masked_fill(likely, -torch.inf).logsumexp(1, keepdim=True)
        return torch.where(likely, others, torch.log1p(-self.p.masked_fill(likely, 0)))

    @cached_property
    def not_truth(self) -> Tensor:
        """1 - truth, and 0 where ignored, `(B, K, *spatial)`."""
        return self.keep(1 - self.truth)

    @cached_property
    def true(self) -> Tensor:
        """Sum of the truth by sample and class, `(B, K)`."""
        return self.truth.flatten(2).sum(2)

    @cached_property
    def sizes(self) -> Tensor:
        """Number of voxels of each sample that count, `(B, 1)`."""
        if self.valid is None:
            return self.logits.new_full((len(self.logits), 1), self.logits[0, 0].numel())
        return self.valid.flatten(1).sum(1, keepdim=True)

    @cached_property
    def voxels(self) -> Tensor:
        """Number of voxels that count, at least 1."""
        return self.sizes.sum().clamp(min=1)

    @cached_property
    def image(self) -> Tensor:
        """What the network saw, `(B, C, *spatial)`, at this resolution.

        Raises:
            ConfigError: the context has none.
        """
        if self.context.image is None:
            raise ConfigError("this loss looks at the image: call it as loss(output, target, LossContext(image=image))")
        return self.fit(self.context.image)

    def fit(self, values: Tensor) -> Tensor:
        """Values `(B, C, *spatial)` of any resolution at this one, averaged.

        Raises:
            ConfigError: they are no tensor, of another batch, or have another number of axes.
        """
        values, size = real(values, "what stands beside logits").to(self.logits), self.logits.shape[2:]
        if values.ndim != self.logits.ndim or len(values) != len(self.logits):
            here, there = tuple(self.logits.shape), tuple(values.shape)
            raise ConfigError(f"beside logits {here} expected (B, C, *spatial) of the same batch, got {there}")
        return values if values.shape[2:] == size else F.interpolate(values, size, mode="area")

    def keep(self, values: Tensor) -> Tensor:
        """Values `(B, K, *spatial)` with 0 where ignored."""
        return values if self.valid is None else values * self.valid

    def by_channel(self, values: Tensor) -> Tensor:
        """Values `(K,)` or `(B, K)` in a shape that multiplies `(B, K, *spatial)`."""
        return values.reshape(-1, values.shape[-1], *(1,) * (self.logits.ndim - 2))


def make_level(logits: Tensor, target: Tensor, context: LossContext, options: Options) -> Level:
    """Bring a batch into form.

    Args:
        logits: `(B, K, *spatial)`.
        target: with a channel axis, from `_target.with_channels`, at any resolution.
        context: of the batch.
        options: of the loss.

    Raises:
        ConfigError: classes, weights, activation and spacing do not fit together.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    full, size = target.shape[2:], logits.shape[2:]
    target = nearest(target, size)
    valid = None if all_count(logits, target, options) else (target != options.ignore_index).all(1, keepdim=True)
    truth, classes = memberships(target, logits), target.shape[1] != logits.shape[1]
    spacing = context.spacing_mm or (1.0,) * len(size)
    if len(spacing) not in (len(size), 3):
        raise ConfigError(f"spacing_mm needs {len(size)} numbers above 0, one a spatial axis, got {spacing}")
    spacing = spacing[: len(size)]
    exclusive = options.activation == "softmax"
    return Level(
        logits,
        truth if valid is None else truth * valid,
        classes or not (exclusive or target.is_floating_point()),
        None if valid is None else valid.to(logits),
        torch.as_tensor(options.class_weights or (1.0,) * logits.shape[1]).to(logits),
        exclusive,
        tuple(s * a / b for s, a, b in zip(spacing, full, size, strict=True)),
        context,
    )
