"""The training loop, in the order in which things happen."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from medseg import progress
from medseg.engine import optim
from medseg.engine.state import Keeper, Run
from medseg.engine.tracking import Meter, tracker
from medseg.errors import Interrupted
from medseg.losses import LossContext
from medseg.settings import Settings

_ROWS = 200  # of history.csv in a whole run
_TWICE_S = 1.0  # signals within it are one: `torchrun` passes on what the terminal has sent already


class Config(Settings):
    """How long and how a model is trained.

    Args:
        budget_s: seconds of wall clock that the whole run aims at, from its first read to its report; several folds share
            them. None counts steps.
        steps: number of steps when there is no budget.
        batch: samples in a step, on each device.
        validations: how often the inner split is predicted, evenly over the run.
        patience: stop early after so many validations without a better one; None never does.
        save_every_s: seconds between checkpoints.
        tensorboard: write curves for TensorBoard too, into the run's `tensorboard/`.
        precision: "auto" takes bf16 where the hardware has it and steps were measured to be a tenth quicker in it, or do not
            fit otherwise; "fp32" and "bf16" are taken without a comparison.
    """

    budget_s: float | None = Field(default=None, gt=0)
    steps: int = Field(default=10_000, ge=1)
    batch: int = Field(default=4, ge=1)
    validations: int = Field(default=20, ge=1)
    patience: int | None = Field(default=None, ge=1)
    save_every_s: float = Field(default=120, gt=0)
    tensorboard: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Batches(Protocol):
    """What gives the batch of a step."""

    spacing_mm: tuple[float, float, float]
    size: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Image and target of a step."""


def fit(
    model: nn.Module,
    loss: nn.Module,
    batches: Batches,
    validate: Callable[[Mapping[str, Tensor]], float],
    config: Config,
    how: optim.Config,
    fabric: Fabric,
    folder: Path,
    *,
    started: float,
    reserve_s: Callable[[float], float] = lambda _: 0.0,
    resume: bool = False,
) -> Run:
    """Train a model; leaves `best.safetensors`, `last.safetensors` and `history.csv` in a folder.

    Args:
        model: maps `(B, C, *spatial)` to logits or `Output`.
        loss: of (output, target, LossContext); its own parameters are trained too.
        batches: the batch of each step.
        validate: Dice on the inner split, 0 to 1, with the given weights.
        config, how: of the run, of the optimiser.
        fabric: device, precision and processes.
        folder: of the checkpoints.
        started: `time.monotonic()` when the budget began.
        reserve_s: seconds to keep back at the end of a budget, given the seconds of one validation.
        resume: go on from `last.safetensors` if it is there.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
        KeyboardInterrupt: a second one came before that.
        MedsegError: the loss stopped being a number.
    """
    model, loss = fabric.to_device(model), fabric.to_device(loss)
    optimiser = optim.build((model, loss), how)
    average = optim.Average(model, how.ema if how.ema is not None else optim.ema_decay(config.steps))
    keep = Keeper(folder, model, loss, optimiser, average, every_s=config.save_every_s, writes=fabric.is_global_zero)
    run = keep.restore() if resume else Run()
    if resume:
        progress.say(f"going on after step {run.step}" if run.step else "nothing was saved yet: from the first step")
    network, optimiser = fabric.setup(model, optimiser)
    network.train()
    clock, meter = _Clock(run, config, fabric, started, reserve_s), Meter()
    buffers = [buffer for module in (model, loss) for buffer in module.buffers()]
    track = tracker(config.tensorboard and fabric.is_global_zero, folder.parent)
    with _signals() as caught, progress.Bar("training", 1.0) as bar:
        while (share := clock.share()) < 1 or run.validations == 0:  # without a validation there is no model
            rate = optim.set_rate(optimiser, how, share)
            asked = time.monotonic()
            image, target = batches(run.step)
            run.waited_s += time.monotonic() - asked
            before = [buffer.clone() for buffer in buffers]
            output = network(image)
            value = loss(output, target, LossContext(image=image, spacing_mm=batches.spacing_mm, progress=share))
            fabric.backward(value)
            _average_gradients(loss, fabric)
            norm = fabric.clip_gradients(
                network, optimiser, max_norm=how.clip_norm or math.inf, error_if_nonfinite=False
            )
            if meter.add(_mean(value, fabric), norm.item() if norm is not None else 0.0):
                optimiser.step()
                average.update()
            else:  # the running figures of normalisation have seen the bad batch already
                for buffer, old in zip(buffers, before, strict=True):
                    buffer.copy_(old)
            optimiser.zero_grad(set_to_none=True)
            run.step += 1
            share = clock.share()
            bar.set(share, meter.note(run))
            if share * config.validations >= run.validations + 1 or share >= 1:
                dice = _validate(run, validate, average, keep, fabric)
                # a validation that takes long skips the next ones, instead of being followed by one at each step
                run.validations = max(run.validations, int(clock.share() * config.validations))
                track(meter.row(run, rate, dice))
                keep.history(run)
            elif share * _ROWS >= len(run.rows) + 1:
                track(meter.row(run, rate, None))
            if run.stale >= (config.patience or math.inf):
                break
            stop = _agree(bool(caught), fabric)
            # right after the best weights, so that neither file speaks of what the other does not know
            keep.now_and_then(run, now=stop or run.best_step == run.step)
            if stop:
                raise Interrupted(
                    f"stopped by a signal after step {run.step}, saved; the same command with --resume goes on"
                )
    keep.save(run)
    return run


class _Clock:
    """How much of a run is over, 0 to 1: of its time where it has a budget, of its steps otherwise.

    Args:
        run: whose seconds are kept; those of earlier starts count.
        config: with the budget, or the steps.
        fabric: of several processes the first one's clock holds.
        started: `time.monotonic()` when this start began.
        reserve_s: seconds to keep back at the end of a budget, given the seconds of one validation.
    """

    def __init__(
        self, run: Run, config: Config, fabric: Fabric, started: float, reserve_s: Callable[[float], float]
    ) -> None:
        self.run, self.config, self.fabric, self.reserve_s = run, config, fabric, reserve_s
        self.begun = started - run.seconds

    def share(self) -> float:
        """How much is over now."""
        self.run.seconds = time.monotonic() - self.begun
        if self.config.budget_s is None:
            return min(1.0, self.run.step / self.config.steps)
        whole = max(self.config.budget_s - self.reserve_s(self.run.validation_s), 1e-3)
        return float(_agree(min(1.0, self.run.seconds / whole), self.fabric))


def _agree(value: Any, fabric: Fabric) -> Any:
    """What the first process says, where several train together: their clocks and signals differ."""
    return fabric.broadcast(value) if fabric.world_size > 1 else value


def _mean(value: Tensor, fabric: Fabric) -> float:
    """The loss over all processes; not a number for all where it is for one, so that all skip the step."""
    mean = fabric.all_reduce(value.detach()) if fabric.world_size > 1 else value.detach()
    assert isinstance(mean, Tensor)
    return mean.item()


def _average_gradients(loss: nn.Module, fabric: Fabric) -> None:
    """The mean over all processes of the gradients of a loss's own parameters; `fabric.setup` cares for the model's."""
    for parameter in loss.parameters() if fabric.world_size > 1 else ():
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        mean = fabric.all_reduce(own)
        assert isinstance(mean, Tensor)
        parameter.grad = mean


def _validate(
    run: Run, validate: Callable[[Mapping[str, Tensor]], float], average: optim.Average, keep: Keeper, fabric: Fabric
) -> float:
    """Dice of the averaged weights; the first process predicts, the others wait for its word."""
    began = time.monotonic()
    dice = float(_agree(validate(average.shadow) if fabric.is_global_zero else None, fabric))
    run.validation_s = time.monotonic() - began
    run.validations, run.stale = run.validations + 1, run.stale + 1
    if dice > run.best:
        run.best, run.best_step, run.stale = dice, run.step, 0
        keep.best(run)
    return dice


@contextlib.contextmanager
def _signals() -> Iterator[list[float]]:
    """A list that fills when SIGINT or SIGTERM comes, instead of the process ending in the middle of a step.

    Who asks again, because the step or a validation takes long, is not made to wait.
    """
    caught: list[float] = []

    def catch(*_: object) -> None:
        now = time.monotonic()
        if caught and now - caught[0] > _TWICE_S:
            raise KeyboardInterrupt
        caught.append(now)

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, catch) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
