"""Settings as people give them: presets, YAML files and `key=value` words, as nested mappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg import resources
from medseg.errors import ConfigError
from medseg.registry import did_you_mean

Tree = dict[str, Any]
# Groups that may be written as one word, and what that word then is.
_SHORT = {"model": "name", "loss": "name", "init": "from"}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Nested mappings joined; the second wins. A model or loss of another name drops the first's options."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and _same_component(old, value):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _same_component(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "name" not in old or bool(new.get("name", old["name"]) == old["name"])


def options(words: Iterable[str]) -> Tree:
    """`["train.batch=4", "model=vnet"]` as nested mappings; values are YAML.

    Raises:
        ConfigError: a word without `=`, or a value that is not YAML.
    """
    tree: Tree = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"an option is written key=value, for instance train.batch=4; got '{word}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of '{key}' is not YAML: '{text}'") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, named(value))
    return tree


def preset(name: str) -> Tree:
    """A preset by its name, or a YAML file by its path.

    Raises:
        ConfigError: no such preset or file, or it is not a mapping.
    """
    folder = resources.shipped("configs")
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    path = known.get(name, Path(name))
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(f"no preset or file '{name}'. {did_you_mean(name, known)}")
    return read(path)


def read(path: Path) -> Tree:
    """A YAML file of settings.

    Raises:
        ConfigError: it cannot be read, or is not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"'{path.name}' is not readable YAML: {error}".replace("\n", " ")) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"'{path.name}' must hold names and values, such as 'train: {{batch: 4}}'")
    return named(tree)


def named(tree: Mapping[str, Any]) -> Tree:
    """`model: vnet` written out as `model: {name: vnet}`; likewise for the loss, each loss in a sum, and `init: FILE`."""
    return {key: _named(value, _SHORT[key]) if key in _SHORT else value for key, value in tree.items()}


def _named(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return [_named(part, name) for part in value]
    return {name: str(value)} if isinstance(value, str | Path) else value


def duration_s(text: str) -> float:
    """`90s`, `20m`, `1.5h` in seconds.

    Raises:
        ConfigError: it is not written like this, or not positive.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"a budget is written 90s, 20m or 2h, and is more than 0; got '{text}'")
    return seconds
