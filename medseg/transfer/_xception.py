"""Xception of 41 and 65 layers as timm names it."""

from __future__ import annotations

import re

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_KINDS = {"conv": 0, "bn": 1}
_BLOCK = re.compile(r".*?blocks\.(\d+)\.stack\..*")
_UNITS = {"dw": 0, "pw": 1}


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names. The last two blocks are the end, of which the very last has no way past it."""
    last = max((int(match[1]) for name in tensors if (match := _BLOCK.fullmatch(name))), default=0)

    def block(number: int) -> str:
        if number < 3:
            return f"stages.{number + 1}.0" + (".0" if number == 2 else "")
        return f"stages.3.{number - 2}" if number < last - 1 else "stages.4.0"

    def unit(number: int, conv: int, kind: str, place: str, part: str) -> str:
        ahead = f"stages.4.{conv}" if number == last else f"{block(number)}.{conv - 1}"
        return f"{ahead}.{_UNITS[place]}.{_KINDS[kind]}.{part}"

    rules: tuple[Rule, ...] = (
        (r"stem\.([01])\.(conv|bn)\.(\w+)", lambda n, kind, part: f"stages.0.{n}.{_KINDS[kind]}.{part}"),
        (r"blocks\.(\d+)\.stack\.conv([123])\.(conv|bn)_(dw|pw)\.(\w+)", unit),
        (
            r"blocks\.(\d+)\.shortcut\.(conv|bn)\.(\w+)",
            lambda number, kind, part: f"{block(number)}.past.{_KINDS[kind]}.{part}",
        ),
    )
    return by_rules(tensors, rules)
