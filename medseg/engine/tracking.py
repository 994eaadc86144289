"""Curves for those who watch them elsewhere; `history.csv` is written anyway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg.engine.state import COLUMNS
from medseg.errors import MedsegError

Track = Callable[[Sequence[Any]], None]


def tracker(tensorboard: bool, folder: Path) -> Track:
    """What is called with each row of the history: nothing, or a TensorBoard writer into `folder/tensorboard`.

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
