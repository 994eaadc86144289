"""Architectures: one file each, found by its name, written once for 2D and 3D.

An architecture's file says in its docstring what it is (`list_models`), and holds its `Config`, its `PRESETS` (the paper's variants, and `tiny`: the same topology with few channels)
and `build(config, *, spatial_dims, in_channels, out_channels)`. Listing names loads no torch; building does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from numbers import Integral
from types import ModuleType
from typing import TYPE_CHECKING, Any

from medseg import memory, registry
from medseg.errors import ConfigError, MedsegError
from medseg.models._about import About as About
from medseg.models._about import about as about
from medseg.models._about import list_models as list_models
from medseg.models._about import parsed as _parsed
from medseg.models._about import require as require
from medseg.settings import parse
from medseg.wording import brief

if TYPE_CHECKING:
    from torch import nn

    from medseg.models._blocks import Output as Output
    from medseg.models._counting import Cost

SIZES = {2: (256, 256), 3: (96, 96, 96)}  # of the images for which operations and memory are stated
_LARGEST = 10_000  # of any number in a network's options; the widest published layer has 4096
_NARROWER = "The model is too large for this machine: make it narrower, or take fewer blocks."


def names() -> tuple[str, ...]:
    """Names of all architectures, sorted."""
    return registry.names(sys.modules[__name__])


def presets(name: str) -> tuple[str, ...]:
    """Names of an architecture's presets.

    Raises:
        ConfigError: no such architecture.
    """
    return tuple(_module(name).PRESETS)


def resolve(model: str | Mapping[str, Any], *, dotted: bool = False) -> dict[str, Any]:
    """The complete description of a model: its name and every option, so that nothing depends on later defaults.

    Args:
        model: a name, or a mapping of `name`, optionally `preset`, and options that replace the preset's.
        dotted: allow the import path of a user's own module as a name. A bundle never may.

    Returns:
        `name` and all options, without `preset`; itself a valid `model`.

    Raises:
        ConfigError: an unknown name, preset or option, or a value that is not allowed.
    """
    name, options = _split(model)
    module = _module(name, dotted=dotted)
    preset = options.pop("preset", None)
    if preset is not None and preset not in module.PRESETS:
        raise _unknown_preset(name, module, preset)
    base = module.PRESETS[preset] if preset is not None else module.Config()
    if empty := [option for option, value in options.items() if value in ([], ()) and getattr(base, option, None)]:
        raise ConfigError(f"model.{empty[0]}: expected one item at least, got none")
    complete = parse(module.Config, base.model_dump() | options, "model").model_dump()
    if "." not in name:
        _check_sizes(complete)
    return {"name": name, **complete}


def check_names(model: Mapping[str, Any], *, dotted: bool = False) -> None:
    """See that name, preset and options exist, whatever their values: a plan may still complete them.

    Raises:
        ConfigError: one of them does not; names the nearest.
    """
    name, options = _split(model)
    module = _module(name, dotted=dotted)
    preset = options.get("preset")
    if preset is not None and preset not in module.PRESETS:
        raise _unknown_preset(name, module, preset)
    if wrong := [option for option in options if option not in ("preset", *module.Config.model_fields)]:
        hint = registry.did_you_mean(str(wrong[0]), ("name", "preset", *module.Config.model_fields))
        raise ConfigError(f"model.{wrong[0]}: unknown option of '{name}'. {hint}")


def _check_sizes(options: Mapping[str, Any]) -> None:
    """Refuse what no machine could hold, in one place for all: libraries overflow in many ways."""
    for option, value in options.items():
        if any(number > _LARGEST for number in _numbers(value)):
            raise ConfigError(f"model.{option}: expected numbers of at most {_LARGEST}, got {brief(value)}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple):
        yield from (number for item in value for number in _numbers(item))
    elif isinstance(value, int | float):
        yield value


def _unknown_preset(name: str, module: ModuleType, preset: str) -> ConfigError:
    return ConfigError(f"unknown preset '{preset}' of model '{name}'. {registry.did_you_mean(preset, module.PRESETS)}")


def create_model(
    model: str | Mapping[str, Any],
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    dotted: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a network from its name.

    Args:
        model: a name, or a mapping of `name`, optionally `preset`, and options.
        spatial_dims: 2 or 3.
        in_channels: channels of the image, at least 1.
        out_channels: classes, background included (or overlapping labels), at least 1.
        dotted: allow the import path of a user's own module as a name. A bundle never may.
        options: more options, `preset` among them; they replace those of the mapping.

    Returns:
        A module from `(B, in_channels, *spatial)` of any size to logits `(B, out_channels, *spatial)`. In training mode it may
        return an `Output` of logits and auxiliary logits instead.

    Raises:
        ConfigError: an unknown name, preset or option, or a value that is not allowed.
        MedsegError: its weights do not fit in memory.

    Example:
        >>> net = create_model("unet", spatial_dims=3, in_channels=1, out_channels=3, preset="tiny")
    """
    from medseg.models import _guarded

    if not isinstance(spatial_dims, Integral) or spatial_dims not in (2, 3):
        raise ConfigError(f"model: spatial_dims must be 2 or 3, got {brief(spatial_dims)}")
    if not all(isinstance(channels, Integral) and channels >= 1 for channels in (in_channels, out_channels)):
        ends = f"{brief(in_channels)} and {brief(out_channels)}"
        raise ConfigError(f"model: needs whole numbers of at least one channel in and one out, got {ends}")
    name, given = _split(model)
    settings = resolve({"name": name} | given | options, dotted=dotted)
    module = _module(settings.pop("name"), dotted=dotted)
    if spatial_dims not in (allowed := _parsed(name, module.__doc__).dims):
        raise ConfigError(f"model '{name}' is made for {allowed[0]}D alone, got spatial_dims={spatial_dims}")
    config = parse(module.Config, settings, "model")
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    make = partial(module.build, config, spatial_dims=spatial_dims, **channels)
    if "." not in name and config not in module.PRESETS.values():
        _check_memory(make)
    with memory.enough_memory(_NARROWER):
        built: nn.Module = make()
    return _guarded.guard(built)


def _check_memory(make: Callable[[], nn.Module]) -> None:
    """Refuse what a system that promises more memory than it has would only stop at by ending the process."""
    from medseg.models import _counting

    with memory.enough_memory(_NARROWER):
        needed, free = 4 * _counting.parameters(make), memory.free_bytes()
    if needed > free:
        raise MedsegError(
            f"the model's weights take {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free. {_NARROWER}"
        )


def parameters(
    model: str | Mapping[str, Any], *, spatial_dims: int, in_channels: int = 1, out_channels: int = 2, **options: Any
) -> int:
    """How many numbers a network learns, counted without making them. Args, Raises: as for `create_model`."""
    from medseg.models import _counting

    ends: dict[str, Any] = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    return _counting.parameters(lambda: create_model(model, **ends, **options))


def cost(
    model: str | Mapping[str, Any],
    *,
    spatial_dims: int,
    in_channels: int = 1,
    out_channels: int = 2,
    size: tuple[int, ...] | None = None,
    **options: Any,
) -> Cost:
    """Parameters, operations and memory of a network for one image, counted without computing.

    Args, Raises: as for `create_model`; `size` is that of the image, without it one of `SIZES`.
    """
    from medseg.models import _counting

    ends: dict[str, Any] = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    image = (in_channels, *(size or SIZES[spatial_dims]))
    return _counting.cost(lambda: create_model(model, **ends, **options), image)


def _split(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(model, str | Mapping):
        raise ConfigError(f"model: expected a name, or names and values; got {brief(model)}")
    options = {"name": model} if isinstance(model, str) else dict(model)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"model: needs a name, got {name!r}. Known: {', '.join(names())}.")
    if options.get("preset") is not None:
        options["preset"] = str(options["preset"])  # YAML takes 103 for a number
    return name, options


def _module(name: str, *, dotted: bool = False) -> ModuleType:
    module = registry.load(sys.modules[__name__], name, dotted=dotted)
    if missing := [part for part in ("Config", "PRESETS", "build") if not hasattr(module, part)]:
        raise ConfigError(
            f"model '{name}' lacks {', '.join(missing)}: a model's module holds Config, PRESETS and build"
        )
    return module


def __getattr__(name: str) -> Any:
    if name == "Output":
        from medseg.models._blocks import Output

        return Output
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
