"""Left and right in the names of structures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Side = Literal["left", "right"]
_SIDES: dict[str, Side] = {**dict.fromkeys(("left", "l", "lt"), "left"), **dict.fromkeys(("right", "r", "rt"), "right")}


def pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Which names are the left and the right of one thing, as positions: `Kidney_left` and `kidney right`."""
    sided = [split(name) for name in names]
    return tuple(
        (a, b)
        for a, (left, its_side) in enumerate(sided)
        for b, (right, other_side) in enumerate(sided)
        if left == right and (its_side, other_side) == ("left", "right")
    )


def words(name: str) -> list[str]:
    """The words of a name in small letters: letters and digits of any script."""
    return re.findall(r"[^\W_]+", name.lower())


def split(name: str) -> tuple[str, Side | None]:
    """The name without its side, and the side: `Kidney_left` -> (`kidney`, `left`); None where it has no side, or both."""
    sides = {_SIDES[word] for word in words(name) if word in _SIDES}
    bare = " ".join(word for word in words(name) if word not in _SIDES)
    return bare, sides.pop() if len(sides) == 1 else None
