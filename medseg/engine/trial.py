"""A few real steps on this device before a run: which arithmetic is quicker, how long a step takes, what memory it needs."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from medseg import system
from medseg.engine.fit import Batches
from medseg.errors import MedsegError
from medseg.losses import LossContext

_STEPS = 3  # after one to warm up


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Args:
        precision: "bf16" where it was at least a tenth quicker and gave finite numbers, or alone fitted; else "fp32".
        step_s: seconds of the quickest step, batch included.
        seconds: the same of every arithmetic that gave a step.
        batch: samples in a step.
        memory_gb: most that the process (or the GPU) held meanwhile.
    """

    precision: str
    step_s: float
    seconds: dict[str, float]
    batch: int
    memory_gb: float


def measure(
    model: nn.Module, loss: nn.Module, batches: Batches, device: torch.device, precision: str = "auto"
) -> Trial:
    """Make a few steps with copies of model and loss, in each arithmetic that the hardware has.

    Args:
        model, loss: left as they are.
        batches: of the run.
        device: to run on.
        precision: "auto" tries fp32, and bf16 where the device computes in it; another name that one alone.

    Raises:
        MemoryError: a step fits in no arithmetic tried.
        MedsegError: none gave a finite loss.
    """
    both = ("fp32", "bf16") if system.has_bf16(device) else ("fp32",)
    tried = both if precision == "auto" else (precision,)
    times: dict[str, list[float]] = {}
    full = False
    for name in tried:
        limit_s = (times.get("fp32") or [math.inf])[0]
        try:
            times[name] = _times(model, loss, batches, device, name == "bf16", limit_s)
        except (MemoryError, RuntimeError) as error:
            if not system.is_out_of_memory(error):
                raise
            full = True  # and no more of the error is kept: it holds on to what did not fit
    # other work on the machine only ever adds
    seconds = {name: min(found[1:] or found) for name, found in times.items() if found}
    if not seconds and full:
        raise MemoryError(f"a step of {batches.size} samples does not fit in the memory of {device}")
    if not seconds:
        raise MedsegError(f"no step in {' or '.join(tried)} gave a finite loss on {device}. Set train.precision=fp32.")
    best = "bf16" if seconds.get("bf16", 9e9) < 0.9 * seconds.get("fp32", 9e9) else next(iter(seconds))
    return Trial(best, seconds[best], seconds, batches.size, system.peak_memory_gb(device.type == "cuda"))


def _times(
    model: nn.Module, loss: nn.Module, batches: Batches, device: torch.device, bf16: bool, limit_s: float
) -> list[float]:
    """Seconds of each step; none where the arithmetic is missing here or gives no finite loss.

    The first step is slower than the others. Where it takes longer than `limit_s`, it stays the only one.
    """
    model, loss = copy.deepcopy(model).to(device).train(), copy.deepcopy(loss).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    times: list[float] = []
    try:
        for step in range(_STEPS + 1):
            began = time.perf_counter()
            image, target = batches(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = model(image)
            value = loss(output, target, LossContext(image=image, spacing_mm=batches.spacing_mm, progress=0.0))
            value.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            finite = bool(torch.isfinite(value))  # also waits for a GPU
            times.append(time.perf_counter() - began)
            if not finite:
                return []
            if times[0] > limit_s:
                break
    except RuntimeError as error:
        if not bf16 or system.is_out_of_memory(error):
            raise
        return []
    return times
