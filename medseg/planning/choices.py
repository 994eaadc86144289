"""What a plan is made of: settings with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """One setting, and why."""

    name: str
    value: Any
    reason: str


def nested(choices: Sequence[Choice]) -> dict[str, Any]:
    """Choices as nested mappings: `{"sample": {"patch": ...}, ...}`."""
    tree: dict[str, Any] = {}
    for choice in choices:
        *path, last = choice.name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = choice.value
    return tree
