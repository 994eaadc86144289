"""Words of messages: numbers with their nouns, lists and values cut short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

T = TypeVar("T", bound=Hashable)
_LONGEST = 100  # characters of a value


def counted(count: int, one: str, many: str = "") -> str:
    """`1 scan`, `2 scans`; `many` where more than an s is needed: `1 scan is`, `2 scans are`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def few(items: Iterable[object], shown: int = 3) -> str:
    """The first names of a list and how many more there are, for messages."""
    names = [str(item) for item in items]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def brief(value: Any) -> str:
    """A value for a message, which stays one readable line whatever came."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def repeated(items: Iterable[T]) -> list[T]:
    """What a list holds more than once, in its order."""
    return [item for item, count in Counter(items).items() if count > 1]
