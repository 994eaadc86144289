"""What long work says: a bar with its end in sight on a terminal, a plain line now and then elsewhere, and a log file."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")
logger = logging.getLogger("medseg")
_PLAIN_EVERY_S = 30.0


def say(message: str) -> None:
    """One line for the user, and for the log file of the run if there is one."""
    logger.info(message)


def warn(message: str) -> None:
    """One line about something the user should look at."""
    logger.warning("warning: %s", message)


@contextlib.contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Copy every line to a file while the block runs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)  # a notebook that never calls `talk` has a whole log too
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def talk() -> None:
    """Show lines on standard error; the command line calls it once, a library user may."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not _talks():
        logger.addHandler(_Terminal())


def _talks() -> bool:
    return any(isinstance(handler, _Terminal) for handler in logger.handlers)


class _Terminal(logging.Handler):
    """Standard error as it is now, looked up at each line so that a bar or a test may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        Bar.clear()
        print(record.getMessage(), file=sys.stderr)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress; `total` is needed where `items` has no length."""
    with Bar(what, total if total is not None else len(items)) as bar:  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.step()


class Bar:
    """Progress of one piece of work, in whatever unit `total` is; says nothing unless `talk` was called."""

    def __init__(self, what: str, total: float) -> None:
        self.what, self.total, self.done = what, total, 0.0
        self.start = self.said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def step(self, amount: float = 1, note: str = "") -> None:
        """Add to what is done."""
        self.set(self.done + amount, note)

    def set(self, done: float, note: str = "") -> None:
        """Set what is done, with a word about the state, and show it if it is time to."""
        self.done, now = done, time.monotonic()
        terminal = _talks() and sys.stderr.isatty()
        if now - self.said < (0.1 if terminal else _PLAIN_EVERY_S) or not logger.isEnabledFor(logging.INFO):
            return
        self.said = now
        if terminal:
            print(f"\r\x1b[2K{self._line(now, note)}", end="", file=sys.stderr, flush=True)
        else:
            say(self._line(now, note))

    def _line(self, now: float, note: str) -> str:
        share = min(1.0, self.done / self.total) if self.total else 1.0
        left = clock((now - self.start) * (1 - share) / share) if share > 0 else "?"
        return f"{self.what} {share:4.0%}, {left} left{', ' + note if note else ''}"

    @staticmethod
    def clear() -> None:
        """Remove the bar from the terminal's line."""
        if _talks() and sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as people write them: 45 s, 3 min 20 s, 1 h 05 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    return (
        f"{total // 60} min {total % 60:02d} s" if total < 3600 else f"{total // 3600} h {total % 3600 // 60:02d} min"
    )
