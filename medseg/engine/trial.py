"""A few real steps on this device before a run: which arithmetic is quicker, how long a step takes, what memory it needs."""

from __future__ import annotations

import copy
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
        precision: "bf16" where it was at least a tenth quicker and gave finite numbers, else "fp32".
        step_s: seconds of the quickest step, batch included.
        seconds: of every arithmetic tried.
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
        precision: "auto" tries fp32 and bf16, another name that one alone.
    """
    tried = ("fp32", "bf16") if precision == "auto" else (precision,)
    measured = {name: _step_s(model, loss, batches, device, name == "bf16") for name in tried}
    seconds = {name: value for name, value in measured.items() if value is not None}
    if not seconds:
        raise MedsegError(f"no step in {' or '.join(tried)} gave a finite loss on {device}. Set train.precision=fp32.")
    best = "bf16" if seconds.get("bf16", 9e9) < 0.9 * seconds.get("fp32", 9e9) else next(iter(seconds))
    return Trial(best, seconds[best], seconds, batches.size, system.peak_memory_gb(device.type == "cuda"))


def _step_s(model: nn.Module, loss: nn.Module, batches: Batches, device: torch.device, bf16: bool) -> float | None:
    """Seconds of the quickest step; None where the arithmetic is missing here or gives no finite loss."""
    model, loss = copy.deepcopy(model).to(device).train(), copy.deepcopy(loss).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    times = []
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
                return None
    except RuntimeError as error:
        if not bf16 or system.is_out_of_memory(error):
            raise
        return None
    return min(times[1:])  # other work on the machine only ever adds
