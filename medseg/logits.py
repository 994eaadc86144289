"""What logits say."""

from __future__ import annotations

import torch
from torch import Tensor


def best_class(logits: Tensor) -> Tensor:
    """The class with the largest logit: `(K, ...)` -> `(...)` uint8, int16 above 256 classes; of equal ones the first.

    On a CPU one class after the other is compared, which is many times quicker than torch's argmax over the first axis.
    """
    dtype = torch.uint8 if len(logits) <= 256 else torch.int16
    if logits.device.type != "cpu":
        return logits.argmax(0).to(dtype)
    top, found = logits[0].clone(), torch.zeros(logits.shape[1:], dtype=dtype)
    for number, other in enumerate(logits[1:], 1):
        better = (other > top).to(dtype).mul_(number)  # numbers rise: the largest is the last that was better
        torch.maximum(found, better, out=found)
        torch.maximum(top, other, out=top)
    return found


def finite(logits: Tensor) -> bool:
    """Whether all logits are numbers: one that is none makes the sum none, and a sum needs no copy."""
    return bool(logits.sum().isfinite())
