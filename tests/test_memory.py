from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medseg import memory
from medseg.errors import MedsegError


def machine(root: Path, monkeypatch: pytest.MonkeyPatch, available_kb: int | None = 1000, group: str = "/") -> Path:
    """A machine of files; returns the folder of its control groups."""
    (root / "groups").mkdir()
    (root / "meminfo").write_text("MemTotal: 9 kB\n" + (f"MemAvailable:   {available_kb} kB\n" if available_kb else ""))
    (root / "cgroup").write_text(f"12:cpu:/old\n0::{group}\n")
    monkeypatch.setattr(memory, "_MACHINE", root / "meminfo")
    monkeypatch.setattr(memory, "_OWN_GROUP", root / "cgroup")
    monkeypatch.setattr(memory, "_GROUPS", root / "groups")
    return root / "groups"


def limit(group: Path, most: str, used: int, cached: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in {"max": most, "current": used, "stat": f"anon 5\ninactive_file {cached}\n"}.items():
        (group / f"memory.{name}").write_text(f"{text}\n")


def test_without_limits_it_is_what_the_machine_has_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = machine(tmp_path, monkeypatch)
    assert memory.free_bytes() == 1000 * 1024
    limit(groups, "max", 10**9)
    assert memory.free_bytes() == 1000 * 1024


def test_the_tightest_group_decides_and_caches_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = machine(tmp_path, monkeypatch, group="/job/step")
    limit(groups / "job", "5000", 4000, cached=500)
    limit(groups / "job/step", "max", 4000)
    assert memory.free_bytes() == 1500
    limit(groups / "job/step", "4100", 4000)
    assert memory.free_bytes() == 100
    limit(groups / "job", "5000", 7000)
    assert memory.free_bytes() == 0


def test_where_nothing_can_be_asked_something_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, available_kb=None)
    assert memory.free_bytes() == 8e9


def test_this_machine_has_some() -> None:
    assert memory.free_bytes() > 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA: tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory cards"), False),
    ],
)
def test_out_of_memory_is_known_in_all_its_words(error: Exception, expected: bool) -> None:
    assert memory.is_out_of_memory(error) == expected


def test_what_torch_says_without_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert memory.is_out_of_memory(caught.value)


def test_memory() -> None:
    assert 0.1 < memory.total_gb() < 1e5
    assert 0.01 < memory.peak_gb(False) < memory.total_gb()


def test_peak_memory_follows_what_was_held() -> None:
    before = memory.peak_gb(False)
    block = bytearray(int((before + 0.2) * 1e9))
    block[::4096] = b"x" * len(block[::4096])
    assert memory.peak_gb(False) > before + 0.15


def test_memory_that_does_not_suffice_is_a_line() -> None:
    with pytest.raises(MedsegError, match=r"^out of memory\. Do less\.$"), memory.enough_memory("Do less."):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(RuntimeError, match="something else"), memory.enough_memory("Do less."):
        raise RuntimeError("something else")
