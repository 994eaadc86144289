"""How people declare what the numbers in a mask mean: names and values, in either order, and colours for values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medseg.picture import COLOURED, numbered

_LARGEST = 2**53  # beyond it a declared number is not the one that was written


def read(names: Mapping[str, Any] | Iterable[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Names with their values, of `{"liver": 1, "tumour": [2, 3]}`, its reverse `{"1": "liver"}`, or bare values.

    Raises:
        ValueError: a value is neither a whole number nor a colour `"#rrggbb"`.
    """
    if not isinstance(names, Mapping | Iterable):
        raise ValueError("expected names and values, or a list of values")
    if not isinstance(names, Mapping):
        return [(_name(whole(value)), (whole(value),)) for value in names]
    pairs = list(names.items())
    keys = all(str(key).lstrip("-").isdigit() or _is_colour(key) for key, _ in pairs)
    if pairs and (keys or all(isinstance(value, str) and not _is_value(value) for _, value in pairs)):
        pairs = [(str(name), whole(key)) for key, name in pairs]
    return [
        (str(name), tuple(whole(v) for v in (value if isinstance(value, list | tuple) else [value])))
        for name, value in pairs
    ]


def whole(value: Any) -> int:
    """A declared value as the number that is read of a mask.

    Raises:
        ValueError: it is neither a whole number nor a colour.
    """
    if _is_colour(value):
        return int(numbered(np.frombuffer(bytes.fromhex(value[1:]), np.uint8)))
    if not _is_value(value) or not float(value).is_integer() or abs(float(value)) > _LARGEST:
        raise ValueError(f"{value!r} is no whole number")
    return int(float(value))


def shown(value: int) -> str:
    """A value as people know it: a number, or the colour of a picture."""
    return f"#{value - COLOURED:06x}" if value >= COLOURED else str(value)


def coloured(values: Sequence[int]) -> int | None:
    """The first of some values that is a colour."""
    return next((value for value in values if value >= COLOURED), None)


def _name(value: int) -> str:
    return shown(value) if value >= COLOURED else f"label {value}"


def _is_colour(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"#[0-9a-fA-F]{6}", value))


def _is_value(value: Any) -> bool:
    if _is_colour(value):
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(value)
    except (TypeError, ValueError):
        return False
