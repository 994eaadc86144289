"""The training loop, in the order in which things happen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg import progress
from medseg.engine import distributed, optim
from medseg.engine.clock import Clock, signals
from medseg.engine.stages import recompute
from medseg.engine.state import Checkpointer, Run
from medseg.engine.step import Batches, Step
from medseg.engine.tracking import tracker
from medseg.errors import ConfigError, Interrupted
from medseg.settings import Settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Wanted = Literal["auto", True, False]
Validate = Callable[[Mapping[str, Tensor]], float]
_ROWS = 200  # of history.csv in a whole run


class Config(Settings):
    """How long and how a model is trained.

    Args:
        budget_s: seconds of wall-clock time for the whole run, from its first read to its report; several folds share them.
            None counts steps.
        steps: number of steps when there is no budget.
        batch: samples that a process computes at once.
        accumulate: batches in a step, whose gradients are averaged. For losses that are means over samples this is a step with a
            batch that many times as large, in the memory of one. Batch Dice and batch normalisation see one batch at a time.
        validations: how often the inner split is predicted, evenly over the run.
        patience: stop early after this many validations without a better one; None never does.
        save_every_s: seconds between checkpoints.
        tensorboard: also write curves for TensorBoard, into the run's `tensorboard/`.
        precision: "auto" takes bf16 where the hardware has it and steps were measured to be a tenth faster in it, or do not
            fit otherwise; "fp32" and "bf16" are used as given.
        strategy: "ddp" gives each of the processes that train together all weights; "fsdp" divides weights, gradients, average
            and optimiser state between them, for models that do not fit.
        checkpointing: compute the stages of the model again for their gradients instead of keeping what they computed
            (activation checkpointing): less memory, more time. "auto" does so where a single patch does not fit otherwise.
        compile: compile the model (`torch.compile`), which excludes checkpointing and "fsdp". "auto" does so on CUDA where the
            measured gain exceeds, within the run, the seconds that compiling takes.
        deterministic: the same weights to the last bit each time, on one machine with one number of threads. Needs `steps`;
            `precision` and `compile` then depend on the hardware and not on measurements.
    """

    budget_s: float | None = Field(default=None, gt=0)
    steps: int = Field(default=10_000, ge=1)
    batch: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    validations: int = Field(default=20, ge=1)
    patience: int | None = Field(default=None, ge=1)
    save_every_s: float = Field(default=120, gt=0)
    tensorboard: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    strategy: distributed.Share = "ddp"
    checkpointing: Wanted = "auto"
    compile: Wanted = "auto"
    deterministic: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.deterministic and self.budget_s is not None:
            raise ValueError("deterministic needs steps: a budget follows the clock, which differs each time")
        if self.compile is True and (self.checkpointing is True or self.strategy == "fsdp"):
            raise ValueError("compile excludes checkpointing and strategy=fsdp: choose one")
        return self


def fit(
    model: nn.Module,
    loss: nn.Module,
    batches: Batches,
    validate: Validate,
    config: Config,
    optim_config: optim.Config,
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
        batches: of the run, in order, `Config.accumulate` of them a step.
        validate: Dice on the inner split, 0 to 1, with the given weights.
        config, optim_config: of the run, of its optimiser.
        fabric: device, precision and processes.
        folder: of the checkpoints.
        started: `time.monotonic()` when the budget began.
        reserve_s: seconds to keep back at the end of a budget, given the seconds of one validation.
        resume: go on from `last.safetensors` if it is there.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
        KeyboardInterrupt: a second one came before that.
        MedsegError: the loss stopped being a number.
        ConfigError: processes cannot divide what has to be learned.
    """
    if config.strategy == "fsdp" and any(parameter.requires_grad for parameter in loss.parameters()):
        raise ConfigError("train.strategy=fsdp takes no loss that learns something itself. Use train.strategy=ddp.")
    if config.checkpointing is True:
        recompute(model)
    network = fabric.setup_module(cast(nn.Module, torch.compile(model)) if config.compile is True else model)
    loss, divided = loss.to(fabric.device), config.strategy == "fsdp"
    optimiser = optim.build((model, loss), optim_config)
    decay = optim.ema_decay(config.steps) if optim_config.ema is None else optim_config.ema
    average = optim.Average(model, decay)
    saver = Checkpointer(
        folder, model, loss, optimiser, average, every_s=config.save_every_s, writes=fabric.is_global_zero
    )
    run = saver.restore() if resume else Run()
    if resume:
        progress.say(f"going on after step {run.step}" if run.step else "nothing was saved yet: from the first step")
    moved = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimiser))
    network.train()
    step = Step(
        network, loss, moved, average, batches, optim_config, fabric, accumulate=config.accumulate, divided=divided
    )
    clock = Clock(run, config.budget_s, config.steps, fabric, started, reserve_s)
    _loop(run, step, partial(_validate, run, validate, average, saver, fabric), clock, saver, config, fabric)
    saver.save(run)
    return run


def _loop(
    run: Run, step: Step, judge: Callable[[], float], clock: Clock, saver: Checkpointer, config: Config, fabric: Fabric
) -> None:
    """Step after step until the run is over, with rows of its history, validations and checkpoints as they fall due."""
    meter, track = step.meter, tracker(config.tensorboard and fabric.is_global_zero, saver.folder.parent)
    with signals() as caught, progress.Bar("training", 1.0) as bar:
        while (share := clock.share()) < 1 or run.validations == 0:  # without a validation there is no model
            rate = step(run, share)
            share = clock.share()
            bar.set(share, meter.note(run))
            if share * config.validations >= run.validations + 1 or share >= 1:
                dice = judge()
                # a validation that takes long skips the next ones, instead of being followed by one at each step
                run.validations = max(run.validations, int(clock.share() * config.validations))
                track(meter.row(run, rate, dice))
                saver.history(run)
            elif share * _ROWS >= len(run.rows) + 1:
                track(meter.row(run, rate, None))
            if run.stale >= (config.patience or math.inf):
                break
            stop, due = distributed.agree((bool(caught), saver.due()), fabric)
            # right after the best weights, so that neither file speaks of what the other does not know
            if stop or due or run.best_step == run.step:
                saver.save(run)
            if stop:
                raise Interrupted(
                    f"stopped by a signal after step {run.step}, saved; the same command with --resume goes on"
                )


def _validate(run: Run, validate: Validate, average: optim.Average, saver: Checkpointer, fabric: Fabric) -> float:
    """Dice of the averaged weights; the first process predicts, the others wait for its word."""
    began = time.monotonic()
    weights = average.weights()
    dice = float(distributed.agree(validate(weights) if fabric.is_global_zero else None, fabric))
    run.validation_s = time.monotonic() - began
    run.validations, run.stale = run.validations + 1, run.stale + 1
    if dice > run.best:
        run.best, run.best_step, run.stale = dice, run.step, 0
        saver.best(run)
    return dice
