"""Losses by name: `create_loss("dice_ce")`, `create_loss({"name": "dice", "smooth": 1})`.

Each file of this folder is a loss and has a `Config` and `build(config) -> nn.Module`. A loss is called as
`loss(output, target, context)` and gives a scalar:

- output: logits `(B, K, *spatial)`, 2D or 3D, or a model's training output with fields `logits` and `auxiliary`;
- target: classes `(B, *spatial)`, or memberships `(B, K, *spatial)` that are soft (softmax) or may overlap (sigmoid);
- context: `LossContext`; losses that need nothing from it may be called without.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from medseg import registry
from medseg.errors import ConfigError
from medseg.losses._context import LossContext
from medseg.settings import Settings, parse

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LossContext", "create_loss", "names", "resolve"]


def names() -> tuple[str, ...]:
    """Names of all losses, sorted."""
    return registry.names(sys.modules[__name__])


def resolve(loss: str | Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The complete description of a loss: its name and every option; itself a valid `loss`.

    Args, Raises: as for `create_loss`.
    """
    name, settings = _settings(loss, options)
    return {"name": name, **settings.model_dump()}


def create_loss(loss: str | Mapping[str, Any], **options: Any) -> nn.Module:
    """Make a loss.

    Args:
        loss: a name out of `names()`, the import path of a module of your own, or a mapping with `name` and options.
        options: options of the loss; they win over those of the mapping.

    Returns:
        A module called as `loss(output, target, context)`. Parameters of its own, if any, want to be optimised too.

    Raises:
        ConfigError: no or an unknown name, an unknown option, or a value that is not allowed.
    """
    name, settings = _settings(loss, options)
    made: nn.Module = _module(name).build(settings)
    return made


def _settings(loss: str | Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, Settings]:
    chosen: dict[str, Any] = {"name": loss, **options} if isinstance(loss, str) else {**loss, **options}
    name = chosen.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"a loss needs a name, got {name!r}. Known: {', '.join(names())}.")
    return name, parse(_module(name).Config, chosen, "loss")


def _module(name: str) -> ModuleType:
    return registry.load(sys.modules[__name__], name, dotted=True)
