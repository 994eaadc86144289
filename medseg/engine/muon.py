"""Muon: the momentum of each layer is made orthogonal, so that no direction of its weights is learned faster than another.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". The change is scaled as by Liu et al. 2025
(arXiv:2502.16982, equation 4) to AdamW's, so that rates and decay mean the same for both. What is no matrix learns by AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: singular values above .01 end between .68 and 1.2
_TURNS = 5
_ROWS = 320  # as many channels as U-Nets have; a larger matrix costs more to turn than its network takes to compute
_ADAMW_RMS = 0.2  # root mean square of a usual change by AdamW, in units of the rate


class Muon(torch.optim.AdamW):
    """AdamW, but for groups with `matrix=True`: kernels, which are matrices of outputs by all that each output sees."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, lr=lr, fused=True)
        for group in self.param_groups:
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make a step; the gradients of matrices are used up, so that AdamW sees the others alone."""
        for group in self.param_groups:
            for weight in group["params"] if group["matrix"] else ():
                if weight.grad is not None:
                    self._turn(weight, group)
                    weight.grad = None
        return super().step(closure)

    def _turn(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:  # AdamW looks for a step in every state that it restores
            state.update(step=torch.zeros((), device=weight.device), momentum=torch.zeros_like(weight))
        state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
        ahead = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)  # type: ignore[union-attr]
        change = orthogonal(ahead).view_as(weight)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(change, alpha=-group["lr"] * _ADAMW_RMS * max(ahead.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1: near enough for a step.

    Newton and Schulz's iteration. Each turn multiplies by a polynomial of the Gram matrix, and what becomes of that is known
    without the long side, so that only the first and the last product see it. Of a matrix whose shorter side is long, parts of
    it are made orthogonal, each by itself (Khaled et al. 2025, arXiv:2510.16981), for the cost grows with its square.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T).T
    if len(matrix) > _ROWS:
        return torch.cat([orthogonal(part) for part in matrix.tensor_split(math.ceil(len(matrix) / _ROWS))])
    a, b, c = _QUINTIC
    matrix = matrix / (matrix.norm() + 1e-7)
    gram = matrix @ matrix.T
    total = torch.eye(len(gram), device=gram.device)
    for _ in range(_TURNS):
        factor = b * gram + c * gram @ gram
        factor.diagonal().add_(a)
        total, gram = factor @ total, factor @ gram @ factor
    return total @ matrix
