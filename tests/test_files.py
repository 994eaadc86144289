from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg import files
from medseg.errors import DataError, MedsegError, RunError


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "mask.nii.gz"
    with files.atomic(target) as temporary:
        assert temporary.name == target.name, "writers choose their format by the ending"
        assert temporary.parent.parent == target.parent, "another disk could not be renamed from"
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(BaseException) as caught, files.atomic(target) as temporary:  # noqa: PT011, PT012
        temporary.write_text("new, and not com")
        raise error
    assert isinstance(caught.value, DataError if isinstance(error, OSError) else type(error))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"^no space left for '.*x\.json'\. Free some, or choose another folder\.$"):
        files.write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(MedsegError, match=r"^cannot write '.*a\.txt': "):
        files.write_text(tmp_path / "run" / "a.txt", "x")
    with pytest.raises(MedsegError, match=r"^cannot write '.*run': "), files.lock(tmp_path / "run"):
        pass


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    """The folder of the temporary file is private; the file must not stay so, colleagues read masks."""
    (tmp_path / "plain").write_text("x")
    files.write_text(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_and_bytes_come_back(tmp_path: Path) -> None:
    files.write_text(tmp_path / "t", "Größe µm\n")
    files.write_bytes(tmp_path / "b", b"\x00\r\n\xff")
    assert (tmp_path / "t").read_bytes() == "Größe µm\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n\xff"


def test_json_round_trip_knows_no_nan(tmp_path: Path) -> None:
    value = {"a": [1.5, float("nan"), (float("inf"), -float("inf"))], "b": {"c": None, "d": "NaN", "e": True, "f": 3}}
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert strict == {"a": [1.5, None, [None, None]], "b": {"c": None, "d": "NaN", "e": True, "f": 3}}
    assert files.read_json(tmp_path / "x.json") == strict


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[" * 10**5])
def test_broken_json_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match="is not readable JSON"):
        files.read_json(tmp_path / "x.json")


def test_json_of_an_editor_on_windows(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_json(tmp_path / "x.json") == {}


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: '.*x\.json'"):
        files.read_json(tmp_path / "x.json")


def test_sha256_of_a_file_larger_than_a_block(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) + b"rest"
    (tmp_path / "x").write_bytes(data)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_sha256_of_a_folder_is_of_all_its_files_in_order(tmp_path: Path) -> None:
    for name, data in {"b": b"2", "a": b"1", "sub/c": b"3"}.items():
        files.write_bytes(tmp_path / name, data)
    assert files.sha256(tmp_path) == hashlib.sha256(b"123").hexdigest()
    files.write_bytes(tmp_path / "sub/c", b"4")
    assert files.sha256(tmp_path) == hashlib.sha256(b"124").hexdigest()


def test_sha256_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*nothing': No such file"):
        files.sha256(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the scan holds NaN", "the scan holds NaN"),
        ("'scan' is no series", "'1' is no series"),
        ("cannot read scan/Doe.dcm", "cannot read '1'/Doe.dcm"),
        ("'in/x.nii' and in/x.nii within a/b/x", "'2' and '2' within a/b/x"),
        ("no such file: /home/in/y.nii, main/z", "no such file: /home/y.nii, main/z"),
    ],
)
def test_paths_leave_a_message_and_its_words_stay(text: str, shown: str) -> None:
    assert files.without_paths(text, {Path("scan"): "'1'", Path("in/x.nii"): "'2'"}) == shown


def test_a_lock_keeps_others_out_until_it_ends(tmp_path: Path) -> None:
    with files.lock(tmp_path / "run"):
        with pytest.raises(RunError, match="in use by another medseg process"), files.lock(tmp_path / "run"):
            pass
        with files.lock(tmp_path / "other"):
            pass
    with pytest.raises(ValueError, match="mine"), files.lock(tmp_path / "run"):
        raise ValueError("mine")
    with files.lock(tmp_path / "run"):
        pass


def test_a_waiting_lock_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medseg")
    order: list[str] = []

    def second() -> None:
        with files.lock(tmp_path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with files.lock(tmp_path):
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert caplog.messages == [f"waiting for another medseg process that uses '{tmp_path}'"]


@pytest.mark.parametrize("wait", [False, True])
def test_a_disk_without_locks_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with files.lock(tmp_path, wait=wait):
        pass
    assert caplog.messages == [
        f"warning: '{tmp_path}' cannot be locked (No locks available): let no second medseg process use it"
    ]


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom medseg import files\n"
        f"with files.lock({str(tmp_path)!r}):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError), files.lock(tmp_path):
            pass
        holder.kill()
    with files.lock(tmp_path):
        pass


def test_scratch_is_zeros_in_the_order_of_nifti_and_leaves_nothing(tmp_path: Path) -> None:
    array = files.scratch(tmp_path / "new", (2, 3, 4, 5), np.int16)
    assert (array.shape, array.dtype, array.any()) == ((2, 3, 4, 5), np.int16, False)
    assert array.strides == (120, 2, 6, 24)
    array[1, 2, 3, 4] = 7
    assert array.sum() == 7
    assert not list((tmp_path / "new").iterdir())


def test_scratch_that_finds_no_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match="no space left"):
        files.scratch(tmp_path, (1, 2, 2, 2), np.uint8)


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "deep" / "er")
    files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write '"):
        files.check_writable(tmp_path / "file" / "deep")
