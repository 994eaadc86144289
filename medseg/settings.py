"""The base of every stage's `Config`: typed, frozen, and strict about unknown names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import ConfigError
from medseg.registry import did_you_mean


class Settings(BaseModel):
    """A frozen set of options. Sequences are tuples, so that a value can be shared and hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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
        raise ConfigError("; ".join(_describe(cls, item, where) for item in error.errors())) from None


def _describe(cls: type[Settings], item: Any, where: str) -> str:
    path = [str(part) for part in item["loc"]]
    name = ".".join(([where] if where else []) + path)
    if item["type"] == "extra_forbidden":
        return f"{name}: unknown option. {did_you_mean(path[-1], _fields_at(cls, path[:-1]))}"
    return f"{name}: {item['msg']}, got {item['input']!r}"


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    for part in path:
        cls = cls.model_fields[part].annotation
    return list(cls.model_fields)
