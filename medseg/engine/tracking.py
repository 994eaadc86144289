"""What a run says about itself: the rows of `history.csv`, and curves for those who watch them elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg.engine.state import COLUMNS, Run
from medseg.errors import MedsegError

Track = Callable[[Sequence[Any]], None]
_BAD_STEPS = 20


def tracker(tensorboard: bool, folder: Path) -> Track:
    """A function to call with each row of the history: it does nothing, or writes to TensorBoard in `folder/tensorboard`.

    Raises:
        MedsegError: TensorBoard is wanted and not installed.
    """
    if not tensorboard:
        return lambda row: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MedsegError("train.tensorboard needs the package: pip install 'medseg[tensorboard]'") from error
    writer = SummaryWriter(str(folder / "tensorboard"))

    def track(row: Sequence[Any]) -> None:
        for name, value in zip(COLUMNS[1:], row[1:], strict=True):
            if value != "":
                writer.add_scalar(name, float(value), row[0])
        writer.flush()

    return track


class Meter:
    """The mean loss since the last row of the history."""

    def __init__(self) -> None:
        self.loss, self.total, self.count, self.bad = math.nan, 0.0, 0, 0

    def add(self, loss: float, norm: float) -> bool:
        """Whether the loss and the norm of its gradient are numbers, so that the step may be made."""
        if not math.isfinite(loss + norm):
            self.bad += 1
            if self.bad >= _BAD_STEPS:
                raise MedsegError(
                    f"the loss was not a number for {self.bad} steps. Lower optim.learning_rate, or set train.precision=fp32."
                )
            return False
        self.bad, self.total, self.count = 0, self.total + loss, self.count + 1
        self.loss = self.total / self.count
        return True

    def note(self, run: Run) -> str:
        """The state in a few words."""
        waited = f", waited {run.waited_s / run.seconds:.0%}"
        return f"step {run.step}, loss {self.loss:.3f}{waited}" + (
            f", best Dice {run.best:.3f}" if run.best >= 0 else ""
        )

    def row(self, run: Run, rate: float, dice: float | None) -> list[Any]:
        """Add a row to the history, and start anew."""
        waited = round(run.waited_s / run.seconds, 4)
        row = [
            run.step,
            round(run.seconds, 2),
            round(self.loss, 5),
            f"{rate:.4g}",
            waited,
            "" if dice is None else round(dice, 5),
        ]
        run.rows.append(row)
        self.total, self.count = 0.0, 0
        return row
