"""Components found by the name of their file, and imported only when asked for.

`models/unet.py` is the model `unet`: no table to edit, no decorator to forget. Files whose name starts with an underscore
are helpers and are not listed.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable
from types import ModuleType

from medseg.errors import ConfigError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name in whatever case, or lists all of them when none is near."""
    known = sorted(known)
    lowered = {item.lower(): item for item in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"Did you mean '{lowered[near[0]]}'?" if near else f"Known: {', '.join(known)}."


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of the components of a package, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def load(package: ModuleType, name: str, *, dotted: bool = False) -> ModuleType:
    """The module of one component.

    Args:
        package: `medseg.models` or `medseg.losses`.
        name: file name without ending; with `dotted`, also the import path of a user's own module.
        dotted: allow import paths. A bundle never may: no code comes from files.

    Raises:
        ConfigError: no such component; names the nearest one.
    """
    if name in names(package):
        return importlib.import_module(f"{package.__name__}.{name}")
    if dotted and "." in name:
        try:
            return importlib.import_module(name)
        except Exception as error:  # a user's own code may fail in any way
            hint = ""
            if "/" in name:
                hint = ": give its import path, such as my_package.network, with its folder on PYTHONPATH"
            elif isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                hint = ": put the folder that it lies in on PYTHONPATH"
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ConfigError(f"{_kind(package)} '{name}' cannot be imported{hint} ({reason})") from error
    raise _unknown(package, name)


def check(package: ModuleType, name: str) -> None:
    """Check that a component exists, without importing it.

    Raises:
        ConfigError: no such component; names the nearest one.
    """
    if name not in names(package):
        raise _unknown(package, name)


def _unknown(package: ModuleType, name: str) -> ConfigError:
    hint, known = did_you_mean(name, names(package)), f"Known: {', '.join(names(package))}."
    return ConfigError(f"unknown {_kind(package)} '{name}'. {hint}" + ("" if known in hint else f" {known}"))


def _kind(package: ModuleType) -> str:
    return package.__name__.rpartition(".")[2].replace("losses", "loss").replace("models", "model")


def said(docstring: str | None) -> tuple[str, dict[str, str]]:
    """What a component says of itself: the first paragraph, and its fields (`Paper: ...`, further lines by four spaces)."""
    summary, *rest = (docstring or "").strip().split("\n\n", 1)
    fields = re.findall(r"^(\w+): (.+(?:\n {4}.+)*)", rest[0] if rest else "", re.MULTILINE)
    return " ".join(summary.split()), {key.lower(): " ".join(text.split()) for key, text in fields}
