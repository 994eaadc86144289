"""One variant of a benchmark in this process: `python -m benchmarks._child BENCHMARK SECTION VARIANT ARGUMENTS...`

The benchmark is a module with `parser()` and `sections(asked)`. The last line printed is JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks._operation import Variant
from medseg import memory

_RESET = Path("/proc/self/clear_refs")  # Linux: a 5 written there lets the peak begin anew


def main(name: str, section: str, variant: str, *arguments: str) -> None:
    """Make the variant as the benchmark's arguments say, measure it, print."""
    benchmark = importlib.import_module(f"benchmarks.{name}")
    asked = benchmark.parser().parse_args(arguments)
    print("\n" + json.dumps(measured(benchmark.sections(asked)[section][variant], asked.times)))


def measured(variant: Variant, times: int) -> dict[str, Any]:
    """Run a variant, once to warm up unless it takes too long, then some times.

    Args:
        variant: what to run.
        times: calls that count.

    Returns:
        `seconds` of each call; `peak_mb` (10^6 bytes) above what was held before them, allocated on the GPU where they used it
        and resident otherwise; `facts`, the figures of what the last one returned.
    """
    operation = variant.make()
    if variant.warm_up:
        operation()
        _wait()
    held, seconds = _Memory(), []
    for _ in range(times):
        result = None  # what the last call gave is no part of the next one's memory
        began = time.perf_counter()
        result = operation()
        _wait()
        seconds.append(time.perf_counter() - began)
    peak = held.peak_mb()
    return {"seconds": seconds, "peak_mb": peak, "facts": dict(variant.judge(result)) if variant.judge else {}}


class _Memory:
    """What this process holds now, for its peak to be measured from there."""

    def __init__(self) -> None:
        gc.collect()
        memory.release()  # what glibc keeps would hide what is taken again
        if _RESET.exists():
            _RESET.write_text("5")
        self.resident, self.torch, self.allocated = psutil.Process().memory_info().rss, _torch_on_gpu(), 0
        if self.torch:
            self.torch.cuda.reset_peak_memory_stats()
            self.allocated = self.torch.cuda.memory_allocated()

    def peak_mb(self) -> float:
        """Most that was held since, less what was held then."""
        on_gpu = self.torch.cuda.max_memory_allocated() - self.allocated if self.torch else 0
        resident = memory.peak_gb(False) * 1e9 - self.resident
        return max(0, on_gpu or resident) / 1e6


def _torch_on_gpu() -> Any:
    """torch, if this process has loaded it and there is a GPU."""
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() else None


def _wait() -> None:
    """Until the GPU has done what it was asked."""
    if torch := _torch_on_gpu():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
