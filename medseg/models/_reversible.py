"""Blocks that can be undone: training keeps what the last one made, and finds again what went into each.

Gomez, Ren, Urtasun, Grosse 2017, The reversible residual network, arXiv:1707.04585, equations 6 to 8 and algorithm 1: of two halves
of the channels, y1 = x1 + f(x2) and y2 = x2 + g(y1), so that x2 = y2 - g(y1) and x1 = y1 - f(x2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[nn.Module, nn.Module]


class Reversible(nn.Module):
    """Blocks (f, g) one after the other, that each keep size and number of channels. What goes in is taken as float32, for what
    was added in bf16 cannot be taken away again.

    f and g must give the same each time: no dropout, and no running figures.
    """

    def __init__(self, blocks: Sequence[Pair]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(pair) for pair in blocks)

    def forward(self, x: Tensor) -> Tensor:
        x, blocks = x.float(), [(pair[0], pair[1]) for pair in self.blocks]  # type: ignore[index]
        if not torch.is_grad_enabled():
            return _forward(blocks, x)
        result: Tensor = _Undone.apply(x, blocks, *self.blocks.parameters())
        return result


def _forward(blocks: Iterable[Pair], x: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=1)
    for f, g in blocks:
        one = one + f(two)
        two = two + g(one)
    return torch.cat((one, two), dim=1)


class _Undone(torch.autograd.Function):
    """All blocks as one function that keeps its result alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Sequence[Pair], *_: Tensor) -> Tensor:
        y = _forward(blocks, x)
        ctx.blocks, ctx.device = blocks, "cpu" if x.is_meta else x.device.type  # on meta there is no autocast
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        one, two = ctx.saved_tensors[0].chunk(2, dim=1)
        d_one, d_two = gradient.chunk(2, dim=1)
        found: list[Tensor] = []
        enabled, dtype = ctx.autocast
        with torch.autocast(ctx.device, dtype, enabled=enabled):
            for f, g in reversed(ctx.blocks):
                two, d_one, of_g = _undo(g, one, two, d_one, d_two)
                one, d_two, of_f = _undo(f, two, one, d_two, d_one)
                found = [*of_f, *of_g, *found]
        return torch.cat((d_one, d_two), dim=1), None, *found


def _undo(part: nn.Module, given: Tensor, made: Tensor, d_given: Tensor, d_made: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Of made = before + part(given): what was before, the gradient of what was given, and those of the part's weights."""
    with torch.enable_grad():
        given = given.detach().requires_grad_()
        value = part(given)
    into, *of_weights = torch.autograd.grad(value, (given, *part.parameters()), d_made.to(value.dtype))
    return made - value.detach(), d_given + into, of_weights
