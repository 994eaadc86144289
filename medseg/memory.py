"""How much memory this process may still take."""

from __future__ import annotations

import math
import re
from pathlib import Path

_MACHINE = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_UNKNOWN = 8e9  # where nothing can be asked: not Linux


def free_bytes() -> float:
    """What can be taken without swapping: of the machine, or of the batch job or container where that has less."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(_MACHINE), re.MULTILINE)
    return min(float(found[1]) * 1024 if found else _UNKNOWN, _left_to_groups())


def _left_to_groups() -> float:
    """What the control groups (version 2) of this process leave; their cached files do not count, for they make room."""
    own = re.search(r"^0::/(.*)$", _text(_OWN_GROUP), re.MULTILINE)
    inner = _GROUPS / own[1] if own else _GROUPS
    left = math.inf
    for group in (inner, *inner.parents):
        limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            cached = re.search(r"^inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            left = min(left, int(limit) - int(used) + int(cached[1] if cached else 0))
    return max(0.0, left)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
