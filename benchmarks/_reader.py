"""Reads the files that its standard input names, one per line, and answers each with a line of JSON: what became of it.

`python -m benchmarks._reader MEGABYTES`: no single request of memory may be larger.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "medseg"
_RESET = Path("/proc/self/clear_refs")  # Linux: a 5 written there lets the peak begin anew
_STATUS = Path("/proc/self/status")


def main(limit_mb: str) -> None:
    """Answer until the input ends."""
    import nibabel
    import PIL.Image
    import pydicom

    from medseg import io

    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", module="medseg")
    loaded = (nibabel, PIL.Image, pydicom)
    assert all(loaded)
    held_mb = _status_mb("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (int((held_mb + int(limit_mb)) * 1e6),) * 2)
    for line in sys.stdin:
        path = line.rstrip("\n")
        reads = (partial(io.read_geometry, path), partial(io.read, path), partial(io.read, path, "labels"))
        print(json.dumps([look(read) for read in reads]), flush=True)


def look(read: Callable[[], object]) -> dict[str, Any]:
    """What a reader makes of a file: its kind of end, the place of one that is no MedsegError, seconds and megabytes."""
    from medseg.errors import MedsegError

    if _RESET.exists():
        _RESET.write_text("5")
    held_mb, began = _status_mb("VmRSS"), time.process_time()
    kind, where = "read", ""
    try:
        read()
    except MedsegError as error:
        kind, where = type(error).__name__, str(error)
        if "\n" in where:
            kind = "several lines"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = [frame for frame in frames if f"{PACKAGE}/" in frame.filename][-1:] or frames[-1:]
        kind, where = "traceback", f"{type(error).__name__} at {Path(last[0].filename).name}:{last[0].lineno}"
    return {
        "kind": kind,
        "where": where,
        "seconds": time.process_time() - began,
        "peak_mb": _status_mb("VmHWM") - held_mb,
    }


def _status_mb(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
