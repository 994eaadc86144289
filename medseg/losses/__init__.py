"""Losses by name: `create_loss("dice_ce")`, `create_loss({"name": "dice", "smooth": 1})`.

Each file of this folder is a loss and has a `Config` and `build(config) -> nn.Module`. A loss is called as
`loss(output, target, context)` and gives a scalar:

- output: logits `(B, K, *spatial)`, 2D or 3D, or a model's training output with fields `logits`, `auxiliary` and `boundary`;
- target: classes `(B, *spatial)`, or memberships `(B, K, *spatial)` that sum to 1 (softmax) or may overlap (sigmoid);
- context: `LossContext`; losses that need nothing from it may be called without.
"""

from __future__ import annotations

from medseg.losses._about import About, list_losses
from medseg.losses._context import LossContext
from medseg.losses._factory import create_loss, names, resolve, title

__all__ = ["About", "LossContext", "create_loss", "list_losses", "names", "resolve", "title"]
