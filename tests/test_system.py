from __future__ import annotations

import getpass
import os
import platform
import socket
import sys
from importlib import metadata

import pytest

from medseg import system


def test_facts_are_of_the_machine_and_of_nobody() -> None:
    facts = system.facts()
    assert facts["cores"] == system.cores() >= 1
    assert facts["python"] == platform.python_version()
    assert facts["torch"] == metadata.version("torch")
    text = repr(facts)
    assert os.path.expanduser("~") not in text
    assert socket.gethostname() not in text
    assert getpass.getuser() not in text.split()


def test_versions_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "PACKAGES", ("no-such-package",))
    assert system.facts()["no_such_package"] == "not installed"


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/medseg", "train", "my data", "-o", "run"])
    assert system.command() == "medseg train 'my data' -o run"


def test_cores_are_those_of_this_process() -> None:
    assert system.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("environment", "expected"), [({}, (0, 1)), ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4))])
def test_ranks(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert system.ranks() == expected


def test_memory() -> None:
    assert 0.1 < system.memory_gb() < 1e5
    assert 0.01 < system.peak_memory_gb(False) < system.memory_gb()


def test_peak_memory_follows_what_was_held() -> None:
    before = system.peak_memory_gb(False)
    block = bytearray(int((before + 0.2) * 1e9))
    block[::4096] = b"x" * len(block[::4096])
    assert system.peak_memory_gb(False) > before + 0.15
