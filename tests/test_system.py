from __future__ import annotations

import getpass
import io
import os
import platform
import shlex
import socket
import sys
import threading
from importlib import metadata

import pytest
import torch

from medseg import system
from medseg.errors import DataError


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


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/anna/Miller_Joe/scans/", "scans"),
        ("cache=/home/anna/cache", "cache=cache"),
        ("--out=../runs/mine", "--out=mine"),
        ("/a/t1.nii.gz,/b/t2.nii.gz", "t1.nii.gz,t2.nii.gz"),
        (r"C:\Users\anna\scans", "scans"),
        ("0/5", "0/5"),
        ("fold=all/3", "fold=all/3"),
        ("sample.patch=[8,8,8]", "sample.patch=[8,8,8]"),
        ("/", "/"),
    ],
)
def test_of_a_path_the_last_part_is_shown(monkeypatch: pytest.MonkeyPatch, word: str, shown: str) -> None:
    monkeypatch.setattr(sys, "argv", ["medseg", word])
    assert shlex.split(system.command()) == ["medseg", shown]


def test_cores_are_those_of_this_process() -> None:
    assert system.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("environment", "expected"), [({}, (0, 1)), ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4))])
def test_ranks(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert system.ranks() == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", True),
        ("flags : fpu amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2 avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_a_cpu_has_bf16_where_linux_lists_it(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(f"processor : 0\n{flags}\nbugs : none\n"))
    assert system.has_bf16(torch.device("cpu")) is expected


def test_where_nothing_is_listed_there_is_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_file(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_such_file)
    assert not system.has_bf16(torch.device("cpu"))
    assert system.facts()["cpu"]


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "cpuu"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(DataError, match=f"device '{name}' cannot be used here"):
        system.pick_device(name)


def test_auto_is_a_device_that_works() -> None:
    assert torch.zeros(1, device=system.pick_device("auto")).item() == 0


def test_a_thread_can_give_way() -> None:
    found: list[int] = []

    def work() -> None:
        system.give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(10, before)] or not hasattr(os, "sched_getaffinity")
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
