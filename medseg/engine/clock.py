"""When a run ends: its clock, and the signals that stop it before."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from medseg.engine.distributed import agree
from medseg.engine.state import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TWICE_S = 1.0  # signals within it are one: `torchrun` passes on what the terminal has sent already


class Clock:
    """How much of a run is over, 0 to 1: of its time where it has a budget, of its steps otherwise.

    Args:
        run: whose seconds are kept; those of earlier starts count.
        budget_s: seconds of the whole run; None counts steps.
        steps: of the run, where steps count.
        fabric: of several processes the first one's clock holds.
        started: `time.monotonic()` when this start began.
        reserve_s: seconds to keep back at the end of a budget, given the seconds of one validation.
    """

    def __init__(
        self,
        run: Run,
        budget_s: float | None,
        steps: int,
        fabric: Fabric,
        started: float,
        reserve_s: Callable[[float], float],
    ) -> None:
        self.run, self.budget_s, self.steps = run, budget_s, steps
        self.fabric, self.reserve_s = fabric, reserve_s
        self.begun = started - run.seconds

    def share(self) -> float:
        """How much is over now."""
        self.run.seconds = time.monotonic() - self.begun
        if self.budget_s is None:
            return min(1.0, self.run.step / self.steps)
        whole = max(self.budget_s - self.reserve_s(self.run.validation_s), 1e-3)
        return float(agree(min(1.0, self.run.seconds / whole), self.fabric))


@contextlib.contextmanager
def signals() -> Iterator[list[float]]:
    """A list that fills when SIGINT or SIGTERM comes, instead of the process ending in the middle of a step.

    A second signal ends the process at once: the step, or a validation, may take long.
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
