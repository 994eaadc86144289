from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg import progress


class Clock:
    """A clock that a test sets, in place of the real one."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    return made


@pytest.fixture
def talking() -> Iterator[None]:
    """What `talk` changes is set back: other tests are to be silent."""
    state = progress.logger.level, progress.logger.propagate, list(progress.logger.handlers)
    progress.talk()
    yield
    progress.logger.setLevel(state[0])
    progress.logger.propagate, progress.logger.handlers = state[1:]


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Stream:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_seconds_as_people_write_them(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_library_is_silent(monkeypatch: pytest.MonkeyPatch, clock: Clock, tmp_path: Path, terminal: bool) -> None:
    stream = shown(monkeypatch, terminal)
    with progress.log_to(tmp_path / "log.txt"):
        progress.say("hello")
        for _ in progress.track([1, 2], "working"):
            clock.now += 100
    assert stream.getvalue() == ""


def test_lines_and_warnings_go_to_standard_error_once(talking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    progress.talk()
    stream = shown(monkeypatch, terminal=False)
    progress.say("hello")
    progress.warn("look")
    assert stream.getvalue() == "hello\nwarning: look\n"


def test_a_plain_line_now_and_then(talking: None, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    stream = shown(monkeypatch, terminal=False)
    with progress.Bar("training", 100) as bar:
        for done in range(1, 101):
            clock.now += 1
            bar.set(done, "loss 0.5")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "training  30%, 1 min 10 s left, loss 0.5",
        "training  60%, 40 s left, loss 0.5",
        "training  90%, 10 s left, loss 0.5",
    ]


def test_a_bar_on_a_terminal_is_one_line_that_goes_away(
    talking: None, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    stream = shown(monkeypatch, terminal=True)
    with progress.Bar("predicting", 4) as bar:
        for _ in range(4):
            clock.now += 5
            bar.step()
    text = stream.getvalue()
    assert "\n" not in text
    assert [part.strip() for part in text.split("\r\x1b[2K")] == [
        "",
        "predicting  25%, 15 s left",
        "predicting  50%, 10 s left",
        "predicting  75%, 5 s left",
        "predicting 100%, 0 s left",
        "",
    ]


def test_a_line_does_not_run_into_the_bar(talking: None, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    stream = shown(monkeypatch, terminal=True)
    with progress.Bar("w", 2) as bar:
        clock.now += 1
        bar.step()
        progress.say("a word")
    assert "left\r\x1b[2Ka word\n" in stream.getvalue()


def test_what_is_nothing_is_done(talking: None, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    stream = shown(monkeypatch, terminal=True)
    with progress.Bar("w", 0) as bar:
        clock.now += 1
        bar.set(0)
    assert "100%" in stream.getvalue()


def test_track_passes_everything_on_in_order() -> None:
    assert list(progress.track("abc", "w")) == ["a", "b", "c"]
    assert list(progress.track(iter("abc"), "w", total=3)) == ["a", "b", "c"]
    assert list(progress.track([], "w")) == []


def test_a_log_file_holds_every_line_while_it_is_open(tmp_path: Path) -> None:
    """With or without `talk`: a run started from a notebook has its log too."""
    level = progress.logger.level
    progress.say("before")
    with progress.log_to(tmp_path / "run" / "log.txt"):
        progress.say("inside µ")
        progress.warn("careful")
    progress.say("after")
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["inside µ", "warning: careful"]
    assert progress.logger.level == level
    assert not any(isinstance(handler, logging.FileHandler) for handler in progress.logger.handlers)
