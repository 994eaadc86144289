"""What this machine is and can do; facts for reports, and `medseg doctor`."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import sys
import threading
from importlib import metadata
from typing import TYPE_CHECKING, Any

from medseg import memory
from medseg.errors import DataError

if TYPE_CHECKING:
    import torch

PACKAGES = ("medseg", "torch", "lightning-fabric", "numpy", "nibabel", "pydicom")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux lists them, of x86 and of ARM; other systems have no such list


def facts() -> dict[str, Any]:
    """Machine and versions, for reports; nothing about people, paths or networks."""
    import torch

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(memory.total_gb(), 1),
        "gpu": ", ".join(gpus) or "none",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name.replace("-", "_"): version(name) for name in PACKAGES},
    }


def command() -> str:
    """The command line of this process, as one would type it; of paths, which may name people, the last part alone."""
    return shlex.join(map(_shortened, sys.argv))


def _shortened(word: str) -> str:
    """`-o=/home/anna/run` as `-o=run`; a fold, such as `0/5`, is no path."""
    if re.fullmatch(r"(.*=)?(\d+|all)/\d+", word):
        return word
    return re.sub(r"[^=,/\\]*[/\\]+(?=[^=,/\\])", "", word).rstrip("/\\") or word


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranks() -> tuple[int, int]:
    """Number of this process and how many train together, as `torchrun` sets them (under Slurm: `srun torchrun`)."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes a GPU where there is one.

    Raises:
        DataError: no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and ranks()[1] > 1 and device.index is None:  # each of them its own
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise DataError(
            f"device '{name}' cannot be used here. Use auto, cpu, cuda, cuda:1 or mps, as the machine has them."
        ) from error


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself. What has to imitate it takes many times longer than in fp32."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return not _BF16.isdisjoint(_cpuinfo("flags", "Features").split())
    return device.type == "mps" and torch.backends.mps.is_macos_or_newer(14, 0)


def spin_briefly() -> None:
    """Let threads of a parallel loop fall asleep soon while they wait for each other; before torch is imported.

    They spin by default, and on a machine with other work take the cores that the others of their loop need: a training
    step on two cores became 3 to 10 times longer beside one busy process, and 2.3 times with this. Alone it costs 3 %.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def give_way() -> None:
    """Let this thread, and those it starts, run when the others of this process leave a core idle; on Linux, where each
    thread has its own priority."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(10, os.getpriority(os.PRIO_PROCESS, thread)))


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> str:
    """What Linux says of the first core under one of the names, which differ between kinds of processors; else nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            found = (line.partition(":")[2].strip() for line in stream if line.split(":")[0].strip() in names)
            return next(found, "")
    except OSError:
        return ""


def version(name: str) -> str:
    """The version of an installed package, or that there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
