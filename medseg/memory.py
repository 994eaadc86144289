"""Memory: what this process may still take and what it has taken, what to say where it does not suffice, and how glibc keeps it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from medseg.errors import MedsegError

T = TypeVar("T")
_MACHINE = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_UNKNOWN = 8e9  # where nothing can be asked: not Linux
# How torch's CPU allocator (on Linux and Windows), MPS, cuDNN and cuBLAS put it, and torch of more bytes than it can count.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "Storage size calculation overflowed",
)


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


def total_gb() -> float:
    """Memory of the machine in GB, 0 where it cannot be asked."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return 0.0


def peak_gb(gpu: bool) -> float:
    """Most memory this process has held, in GB: of the GPU if one is used, else resident."""
    if gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, did not suffice; libraries say so in many ways."""
    import torch

    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


@contextlib.contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Say in a line what to do where memory does not suffice.

    Raises:
        MedsegError: it did not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MedsegError(f"out of memory. {advice}") from error


def keep_heap() -> bool:
    """Tell glibc to keep freed memory: a training step frees and takes the same blocks, and faulting them in again
    costs 10 to 30 % of it on a CPU. True where it worked."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    trim_threshold, mmap_max = -1, -4
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def one_by_one(parts: Sequence[T]) -> Iterator[T]:
    """Parts of large work; where there are several, what glibc keeps and nobody uses is given back before each.

    Blocks of ever other sizes leave gaps that add up.
    """
    for part in parts:
        if len(parts) > 1:
            release()
        yield part


def release() -> None:
    """Give back to the system what was freed and what glibc keeps."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
