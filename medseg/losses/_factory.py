"""From a loss's name and options to the loss."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from medseg import registry
from medseg.errors import ConfigError
from medseg.settings import Settings, parse

if TYPE_CHECKING:
    from torch import nn

_PACKAGE = __name__.rpartition(".")[0]


def names() -> tuple[str, ...]:
    """Names of all losses, sorted."""
    return registry.names(sys.modules[_PACKAGE])


def module(name: str) -> ModuleType:
    """The file of a loss, which has its `Config` and `build`.

    Raises:
        ConfigError: no such loss; names the nearest one.
    """
    return registry.load(sys.modules[_PACKAGE], name, dotted=True)


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
    made: nn.Module = module(name).build(settings)
    return made


def _settings(loss: str | Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, Settings]:
    chosen: dict[str, Any] = {"name": loss, **options} if isinstance(loss, str) else {**loss, **options}
    name = chosen.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"a loss needs a name, got {name!r}. Known: {', '.join(names())}.")
    return name, parse(module(name).Config, chosen, "loss")
