"""Numbers with their nouns, in messages."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 scan`, `2 scans`; `many` where more than an s is needed: `1 scan is`, `2 scans are`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
