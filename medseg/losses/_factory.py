"""From a loss's name and options to the loss, and from several to their sum."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, overload

from medseg import registry
from medseg.errors import ConfigError
from medseg.settings import Settings, parse

if TYPE_CHECKING:
    from torch import nn

_PACKAGE = __name__.rpartition(".")[0]
One = str | Mapping[str, Any]
Several = list[Any] | tuple[Any, ...]


def names() -> tuple[str, ...]:
    """Names of all losses, sorted."""
    return registry.names(sys.modules[_PACKAGE])


def module(name: str) -> ModuleType:
    """The file of a loss, which has its `Config` and `build`.

    Raises:
        ConfigError: no such loss; names the nearest one.
    """
    return registry.load(sys.modules[_PACKAGE], name, dotted=True)


@overload
def resolve(loss: One, **options: Any) -> dict[str, Any]: ...
@overload
def resolve(loss: Several, **options: Any) -> tuple[dict[str, Any], ...]: ...
def resolve(loss: One | Several, **options: Any) -> dict[str, Any] | tuple[dict[str, Any], ...]:
    """The complete description of a loss: its name and every option; of a sum, that of each with its weight.

    It is itself a valid `loss`. Args, Raises: as for `create_loss`.
    """
    if not isinstance(loss, str | Mapping):
        parts = [_weighed(part) for part in _parts(loss)]
        return tuple({**resolve(part, **options), **_term(weight).model_dump()} for part, weight in parts)
    name, settings = _settings(loss, options)
    return {"name": name, **settings.model_dump()}


def title(loss: One | Several) -> str:
    """Its name, or those of a sum: `dice + boundary`."""
    return " + ".join(part if isinstance(part, str) else part["name"] for part in _parts(loss))


def create_loss(loss: One | Several, **options: Any) -> nn.Module:
    """Make a loss.

    Args:
        loss: a name out of `names()`, the import path of a module of your own, or a mapping with `name` and options. A list
            of them is their sum, in which each mapping may have a `weight`: a number, or a line over the training such as
            `{from: 0.01, to: 1, over: 0.8}`.
        options: options of the loss, or of each in a sum; they win over those of the mapping.

    Returns:
        A module called as `loss(output, target, context)`. Parameters of its own, if any, want to be optimised too.

    Raises:
        ConfigError: no or an unknown name, an unknown option, or a value that is not allowed.
    """
    if isinstance(loss, str | Mapping):
        return _make(loss, options)
    from medseg.losses._composition import Sum

    parts = [_weighed(part) for part in _parts(loss)]
    return Sum([_make(part, options) for part, _ in parts], [_term(rest) for _, rest in parts])


def _make(loss: One, options: Mapping[str, Any]) -> nn.Module:
    name, settings = _settings(loss, options)
    made: nn.Module = module(name).build(settings)
    return made


def _parts(loss: One | Several) -> list[One]:
    parts = list(loss) if isinstance(loss, list | tuple) else [loss]
    if not parts or not all(isinstance(part, str | Mapping) for part in parts):
        raise ConfigError(f"loss: expected a name, names and values, or a list of them; got {loss!r}")
    return parts


def _weighed(part: One) -> tuple[One, Mapping[str, Any]]:
    """A loss in a sum, and its weight."""
    if isinstance(part, str):
        return part, {}
    return {k: v for k, v in part.items() if k != "weight"}, {k: v for k, v in part.items() if k == "weight"}


def _term(weight: Mapping[str, Any]) -> Any:
    from medseg.losses._composition import Term

    return parse(Term, weight, "loss")


def _settings(loss: One, options: Mapping[str, Any]) -> tuple[str, Settings]:
    chosen: dict[str, Any] = {"name": loss, **options} if isinstance(loss, str) else {**loss, **options}
    name = chosen.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"a loss needs a name, got {name!r}. Known: {', '.join(names())}.")
    return name, parse(module(name).Config, chosen, "loss")
