"""The training loop, in the order in which things happen."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from medseg import files, progress
from medseg.engine import optim, state
from medseg.errors import Interrupted, MedsegError
from medseg.losses import LossContext
from medseg.settings import Settings

COLUMNS = ("step", "seconds", "loss", "learning_rate", "wait_share", "validation_dice")
_ROWS = 200  # of history.csv in a whole run
_BAD_STEPS = 20


class Config(Settings):
    """How long and how a model is trained.

    Args:
        budget_s: seconds of wall clock for the whole run, from its first read to its report; None counts steps.
        steps: number of steps when there is no budget.
        batch: samples in a step, on each device.
        validations: how often the inner split is predicted, evenly over the run.
        patience: stop early after so many validations without a better one; None never does.
        save_every_s: seconds between checkpoints.
        precision: "auto" takes bf16 where the hardware has it and it was measured to be faster.
    """

    budget_s: float | None = Field(default=None, gt=0)
    steps: int = Field(default=10_000, ge=1)
    batch: int = Field(default=4, ge=1)
    validations: int = Field(default=20, ge=1)
    patience: int | None = Field(default=None, ge=1)
    save_every_s: float = Field(default=120, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Batches(Protocol):
    """What gives the batch of a step."""

    spacing_mm: tuple[float, float, float]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Image and target of a step."""


@dataclass
class Run:
    """What training has come to; a checkpoint's JSON holds it.

    Args:
        step: steps made.
        seconds: of wall clock since the budget began, over all starts.
        waited_s: of them, waiting for batches.
        best: highest Dice of a validation, at `best_step`; -1 before the first.
        validations: made; `stale` of them since the best one.
        validation_s: seconds of the last one.
        rows: of history.csv.
    """

    step: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    best: float = -1.0
    best_step: int = 0
    validations: int = 0
    stale: int = 0
    validation_s: float = 0.0
    rows: list[list[Any]] = field(default_factory=list)


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
        MedsegError: the loss stopped being a number.
    """
    model, loss = fabric.to_device(model), fabric.to_device(loss)
    optimiser = optim.build((model, loss), how)
    average = optim.Average(model, how.ema if how.ema is not None else optim.ema_decay(config.steps))
    keep = _Keeper(folder, model, loss, optimiser, average, config.save_every_s)
    run = keep.restore() if resume else Run()
    begun = started - run.seconds
    network, optimiser = fabric.setup(model, optimiser)
    network.train()
    meter = _Meter()
    with _signals() as caught, progress.Bar("training", 1.0) as bar:
        while (share := _share(run, config, reserve_s)) < 1 and run.stale < (config.patience or math.inf):
            rate = optim.learning_rate(how, share)
            for group in optimiser.param_groups:
                group["lr"] = rate
            asked = time.monotonic()
            image, target = batches(run.step)
            waited = time.monotonic() - asked
            output = network(image)
            value = loss(output, target, LossContext(image=image, spacing_mm=batches.spacing_mm, progress=share))
            fabric.backward(value)
            if how.clip_norm:
                fabric.clip_gradients(network, optimiser, max_norm=how.clip_norm, error_if_nonfinite=False)
            if meter.add(value.item(), waited):
                optimiser.step()
                average.update()
            optimiser.zero_grad(set_to_none=True)
            run.step, run.waited_s, run.seconds = run.step + 1, run.waited_s + waited, time.monotonic() - begun
            share = _share(run, config, reserve_s)
            bar.set(
                share,
                f"step {run.step}, loss {meter.loss:.3f}" + (f", best Dice {run.best:.3f}" if run.best >= 0 else ""),
            )
            if share * config.validations >= run.validations + 1 or share >= 1:
                dice = _validate(run, validate, average, keep)
                run.seconds = time.monotonic() - begun
                run.rows.append(meter.row(run, rate, dice))
            elif share * _ROWS >= len(run.rows) + 1:
                run.rows.append(meter.row(run, rate, None))
            keep.now_and_then(run, now=bool(caught))
            if caught:
                raise Interrupted(
                    f"stopped by a signal after step {run.step}, saved; the same command with --resume goes on"
                )
    keep.save(run)
    return run


def _share(run: Run, config: Config, reserve_s: Callable[[float], float]) -> float:
    """How much of the run is over, 0 to 1: of its time where it has a budget, of its steps otherwise."""
    if config.budget_s is None:
        return min(1.0, run.step / config.steps)
    return min(1.0, run.seconds / max(config.budget_s - reserve_s(run.validation_s), 1e-3))


def _validate(
    run: Run, validate: Callable[[Mapping[str, Tensor]], float], average: optim.Average, keep: _Keeper
) -> float:
    began = time.monotonic()
    dice = validate(average.shadow)
    run.validation_s = time.monotonic() - began
    run.validations, run.stale = run.validations + 1, run.stale + 1
    if dice > run.best:
        run.best, run.best_step, run.stale = dice, run.step, 0
        state.save(keep.folder / "best.safetensors", {"step": run.step, "dice": dice}, model=average.shadow)
    return dice


class _Meter:
    """Loss and waiting since the last row of the history."""

    def __init__(self) -> None:
        self.loss, self.bad = math.nan, 0
        self._clear()

    def _clear(self) -> None:
        self.total, self.count, self.waited, self.since = 0.0, 0, 0.0, time.monotonic()

    def add(self, loss: float, waited: float) -> bool:
        """Whether the loss is a number, so that the step may be made."""
        self.waited += waited
        if not math.isfinite(loss):
            self.bad += 1
            if self.bad >= _BAD_STEPS:
                raise MedsegError(
                    f"the loss was not a number for {self.bad} steps. Lower optim.learning_rate, or set train.precision=fp32."
                )
            return False
        self.bad, self.total, self.count = 0, self.total + loss, self.count + 1
        self.loss = self.total / self.count
        return True

    def row(self, run: Run, rate: float, dice: float | None) -> list[Any]:
        """A row of history.csv; starts anew."""
        waits = self.waited / max(time.monotonic() - self.since, 1e-9)
        row = [
            run.step,
            round(run.seconds, 2),
            round(self.loss, 5),
            f"{rate:.4g}",
            round(waits, 4),
            "" if dice is None else round(dice, 5),
        ]
        self._clear()
        return row


class _Keeper:
    """Writes and reads the checkpoint of everything that moves."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        loss: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: optim.Average,
        every_s: float,
    ) -> None:
        self.folder, self.model, self.loss, self.optimiser, self.average = folder, model, loss, optimiser, average
        self.every_s, self.saved = every_s, time.monotonic()

    def now_and_then(self, run: Run, *, now: bool) -> None:
        """Save when it is time to."""
        if now or time.monotonic() - self.saved > self.every_s:
            self.save(run)

    def save(self, run: Run) -> None:
        """Write checkpoint and history."""
        parts = {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "ema": self.average.shadow,
            "optimiser": state.optimiser_tensors(self.optimiser),
            "random": {"torch": torch.get_rng_state()},
        }
        state.save(self.folder / "last.safetensors", {"run": asdict(run), "ema_steps": self.average.steps}, **parts)
        lines = [",".join(map(str, row)) for row in [COLUMNS, *run.rows]]
        files.write_text(self.folder.parent / "history.csv", "\n".join(lines) + "\n")
        self.saved = time.monotonic()

    def restore(self) -> Run:
        """Put everything back; a new run where nothing was saved."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            return Run()
        facts, parts = state.load(path)
        state.restore_module(self.model, parts["model"])
        state.restore_module(self.loss, parts.get("loss", {}))
        state.restore_average(self.average, parts["ema"], facts["ema_steps"])
        state.restore_optimiser(self.optimiser, parts.get("optimiser", {}))
        torch.set_rng_state(parts["random"]["torch"])
        return Run(**facts["run"])


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes, instead of the process ending in the middle of a step."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
