"""Left and right in the names of structures."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIDES = ("left", "right", "l", "r", "lt", "rt")


def pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Which names are the left and the right of one thing, as positions: `Kidney_left` and `kidney right`."""
    keys = [_side(name) for name in names]
    return tuple(
        (a, b)
        for a, left in enumerate(keys)
        for b, right in enumerate(keys)
        if left and right and left[0] == right[0] and (left[1], right[1]) == ("l", "r")
    )


def _side(name: str) -> tuple[str, str] | None:
    """The name without its side, and the side: `Kidney_left` -> (`kidney`, `l`); None where it has no side, or several."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    sides = [word[0] for word in words if word in _SIDES]
    return (" ".join(word for word in words if word not in _SIDES), sides[0]) if len(sides) == 1 else None
