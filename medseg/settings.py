"""The base of every stage's `Config`: typed, frozen, and strict about unknown names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import ConfigError
from medseg.registry import did_you_mean
from medseg.wording import brief, counted


class Settings(BaseModel):
    """A frozen set of options. Sequences are tuples, so that a value can be shared and hashed.

    An option whose name is a word of Python has that name as its alias, which people and files use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), serialize_by_alias=True)


S = TypeVar("S", bound=Settings)


def parse(cls: type[S], values: Mapping[str, Any], where: str = "") -> S:
    """Validate a mapping into a `Settings` class.

    Args:
        cls: the class to make.
        values: names and values, nested mappings for nested settings.
        where: prefix of names in messages, for instance `model`.

    Raises:
        ConfigError: one message that holds every wrong name (with the nearest right one) and every wrong value.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(cls, item, where) for item in _mistakes(error))) from None


# How pydantic names the types of a union, in the path to a mistake.
_CHOICE = re.compile(r"(constrained-)?(int|float|str|bool)|(tuple|list|dict)\[.*\]")


def _mistakes(error: ValidationError) -> list[Any]:
    """One item a mistake: where a value may be of several types, what the one that came nearest says."""
    nearest: dict[tuple[Any, ...], tuple[bool, Any]] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        choices = [n for n, part in enumerate(parts) if _CHOICE.fullmatch(part)]
        key = tuple(parts[: choices[0]] if choices else parts)
        of_its_type = len(parts) > len(key) + 1 or not item["type"].endswith(("_type", "_parsing"))
        if key not in nearest or of_its_type > nearest[key][0]:
            named = [part for n, part in enumerate(parts) if n not in choices]
            nearest[key] = (of_its_type, {**item, "loc": named})
    return [item for _, item in nearest.values()]


# What was expected, in a user's words, by the first word of pydantic's name for the error.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list, such as [1, 2, 3]",
    "model": "names and values",
    "dict": "names and values",
}


def _describe(cls: type[Settings], item: Any, where: str) -> str:
    path: list[str] = item["loc"]
    name = ".".join(([where] if where else []) + path)
    kind, _, _ = item["type"].partition("_")
    if item["type"] == "extra_forbidden":
        return f"{name}: unknown option. {did_you_mean(path[-1], _fields_at(cls, path[:-1]))}"
    if kind == "value":  # from a class's own check, which says it all
        return ": ".join(part for part in (name, item["msg"].removeprefix("Value error, ")) if part)
    if kind == "missing":
        return f"{name}: a value is missing"
    got = brief(item["input"])
    if kind == "too":
        ends = item["ctx"]
        least, most = (counted(ends[key], "value") if key in ends else "" for key in ("min_length", "max_length"))
        return f"{name}: expected {f'{least} at least' if least else most}, got {got}"
    expected = _EXPECTED.get(kind, item["msg"].removeprefix("Input should be "))
    expected = f"a number {expected}" if kind in ("greater", "less") else expected
    return f"{name}: expected {expected}, got {got}"


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    for part in path:
        cls = cls if part.isdigit() else _settings_in(cls.model_fields[part].annotation)
    return [field.alias or name for name, field in cls.model_fields.items()]


def _settings_in(annotation: Any) -> Any:
    """The settings of which a type speaks, be it of a list or a choice of them."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(_settings_in, get_args(annotation))), None)


def differences(a: Settings, b: Settings) -> list[str]:
    """Dotted names of the settings in which two configurations differ."""
    return _differences(a.model_dump(mode="json"), b.model_dump(mode="json"), "")


def _differences(a: Any, b: Any, name: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        return [d for key in keys for d in _differences(a.get(key), b.get(key), f"{name}.{key}" if name else key)]
    return [] if a == b else [name]
