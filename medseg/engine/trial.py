"""A few real steps on this device before a run: which precision is faster, whether compiling pays, how long a step takes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from medseg import memory, progress, system
from medseg.engine import optim
from medseg.engine.fit import Config
from medseg.engine.stages import recompute
from medseg.engine.step import Batches
from medseg.errors import MedsegError
from medseg.losses import LossContext

_STEPS = 3  # after one to warm up
_SLOW_S = 20  # a first step that takes longer is hardly slower than the next, and is enough
_COMPILING_S = 60  # what it takes to compile a usual network on a GPU; runs that are not many times longer do without
_MANY = 20

Setup = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Args:
        precision: "bf16" where it was at least a tenth quicker and gave finite numbers, or alone fitted; else "fp32".
        step_s: seconds of the quickest step, batches included.
        seconds: the same of every way in which a step was made.
        batch: samples that a process computes at once.
        memory_gb: most that the process (or the GPU) held meanwhile.
        checkpointing: stages are computed again for their gradients.
        compiled: the model is compiled.
    """

    precision: str
    step_s: float
    seconds: dict[str, float]
    batch: int
    memory_gb: float
    checkpointing: bool = False
    compiled: bool = False

    def settled(self, config: Config) -> Config:
        """The settings of a run, with what was found in place of what was to be found."""
        found = {"batch": self.batch, "checkpointing": self.checkpointing, "compile": self.compiled}
        return config.model_copy(update=found)


def measure(
    model: nn.Module,
    loss: nn.Module,
    batches: Batches,
    device: torch.device,
    config: Config,
    setup: Setup | None = None,
    optim_config: optim.Config = optim.Config(),  # noqa: B008 - frozen
) -> Trial:
    """Make a few steps with copies of model and loss: in each precision that may be used, and compiled where that may pay.

    Args:
        model, loss: left as they are; so are the random generators.
        batches: of the run.
        device: to run on.
        config: of the run.
        setup: puts a model where it trains; None puts it on the device.
        optim_config: of the run's optimiser, which takes memory and time too.

    Returns:
        What the run should use.

    Raises:
        MemoryError: a step does not fit in any precision that was tried.
        MedsegError: none gave a finite loss, or the model cannot be compiled and should be.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        steps = _Steps(model, loss, batches, device, config, setup or (lambda model: model.to(device)), optim_config)
        trial = _fastest(steps)
        return _compiled(steps, trial) if _may_compile(config, trial, device) else trial


@dataclass(frozen=True)
class _Steps:
    """What makes the steps of a trial; `measure` has its arguments."""

    model: nn.Module
    loss: nn.Module
    batches: Batches
    device: torch.device
    config: Config
    setup: Setup
    optim_config: optim.Config

    def times(self, bf16: bool, limit_s: float = math.inf, *, compiled: bool = False) -> list[float]:
        """Seconds of each step; none where the precision is missing here or gives no finite loss.

        The first step is slower than the others. Where it takes longer than `limit_s`, it stays the only one.
        """
        model, loss = copy.deepcopy(self.model), copy.deepcopy(self.loss).to(self.device)
        if self.config.checkpointing is True:
            recompute(model)
        model = self.setup(cast(nn.Module, torch.compile(model)) if compiled else model).train()
        optimiser, average = optim.build((model, loss), self.optim_config), optim.Average(model, 0.5)
        for group in optimiser.param_groups:
            group["lr"] = 0.0
        times: list[float] = []

        def predict(image: Tensor) -> Any:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return model(image)

        try:
            for step in range(_STEPS + 1):
                began = time.perf_counter()
                image, target = self.batches(step)
                context = LossContext(image, self.batches.spacing_mm, predict=predict)
                value = loss(predict(image), target, context)
                value.backward()
                optimiser.step()
                average.update()
                optimiser.zero_grad(set_to_none=True)
                finite = bool(torch.isfinite(value))  # also waits for a GPU
                times.append(time.perf_counter() - began)
                if not finite:
                    return []
                if times[0] > limit_s:
                    break
        except RuntimeError as error:
            if not bf16 or compiled or memory.is_out_of_memory(error):
                raise
            return []
        return times


def _fastest(steps: _Steps) -> Trial:
    """The fastest precision of those that may be used."""
    times: dict[str, list[float]] = {}
    full = False
    tried = _may_compute(steps.config, steps.device)
    for name in tried:
        limit_s = math.inf if _alike(steps.config) else (times.get("fp32") or [_SLOW_S])[0]
        try:
            times[name] = steps.times(name == "bf16", limit_s)
        except (MemoryError, RuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            full = True  # and no more of the error is kept: it holds on to what did not fit
    size, device, batches = steps.batches.size, steps.device, steps.config.accumulate
    # other work on the machine only ever adds
    seconds = {name: batches * min(found[1:] or found) for name, found in times.items() if found}
    if not seconds and full:
        raise MemoryError(f"a step of {size} samples does not fit in the memory of {device}")
    if not seconds:
        raise MedsegError(f"no step in {' or '.join(tried)} gave a finite loss on {device}. Set train.precision=fp32.")
    best = "bf16" if seconds.get("bf16", 9e9) < 0.9 * seconds.get("fp32", 9e9) else next(iter(seconds))
    memory_gb = memory.peak_gb(device.type == "cuda")
    return Trial(best, seconds[best], seconds, size, memory_gb, steps.config.checkpointing is True)


def _may_compute(config: Config, device: torch.device) -> Sequence[str]:
    """The precisions to choose from; one where nothing may depend on the clock."""
    if config.precision != "auto":
        return (config.precision,)
    if not system.has_bf16(device):
        return ("fp32",)
    return ("bf16",) if _alike(config) else ("fp32", "bf16")


def _alike(config: Config) -> bool:
    """Whether nothing may depend on the clock: processes that divide a model make each step together."""
    return config.deterministic or config.strategy == "fsdp"


def _may_compile(config: Config, trial: Trial, device: torch.device) -> bool:
    """Whether to try: it takes a minute, of which a short run has none to lose."""
    if trial.checkpointing or config.compile != "auto":
        return config.compile is True and not trial.checkpointing
    run_s = config.budget_s or config.steps * trial.step_s
    return device.type == "cuda" and not _alike(config) and run_s > _MANY * _COMPILING_S


def _compiled(steps: _Steps, trial: Trial) -> Trial:
    """What was found, with the model compiled where that was asked for or wins back the seconds that it takes."""
    config = steps.config
    try:
        times = steps.times(trial.precision == "bf16", compiled=True)
        reason = "no finite loss"
    except RuntimeError as error:
        if config.compile is True and memory.is_out_of_memory(error):
            raise
        times, reason = [], str(error).strip().partition("\n")[0]
    if not times and config.compile is True:
        raise MedsegError(f"the model cannot be compiled here ({reason}). Set train.compile=false.")
    if not times:
        progress.warn(f"the model cannot be compiled here, and is trained as it is ({reason})")
        return trial
    first, quickest = times[0], min(times[1:])
    step_s = config.accumulate * quickest
    seconds = trial.seconds | {f"{trial.precision} compiled": step_s}
    left = config.budget_s / trial.step_s if config.budget_s else config.steps
    if config.compile == "auto" and left * (trial.step_s - step_s) < first - quickest:
        return replace(trial, seconds=seconds)
    return replace(trial, seconds=seconds, step_s=step_s, compiled=True)
