"""Files that appear whole or not at all, locks, and hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medseg import progress
from medseg.errors import DataError, MedsegError, RunError

if TYPE_CHECKING:
    import numpy.typing as npt

_POLL_S = 0.1


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    The temporary name keeps all suffixes of the target (`.nii.gz`), because writers choose their format by them.

    Raises:
        MedsegError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".medseg-", dir=path.parent))
        try:
            yield folder / path.name
            os.replace(folder / path.name, path)
        finally:
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()
    except OSError as error:
        raise _explain(error, path) from error


def scratch(folder: str | Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros `(C, I, J, K)` in an unnamed file, whose space on the disk is freed with the array.

    Their order is that of a NIfTI file: i runs fastest, and channels slowest.

    Raises:
        MedsegError: the folder cannot be made or written, or the disk is full.
    """
    import numpy as np

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process
                os.posix_fallocate(stream.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
            return np.memmap(stream, dtype, "r+", shape=(shape[0], *shape[:0:-1])).transpose(0, 3, 2, 1)
    except OSError as error:
        raise _explain(error, folder / "scratch") from error


def check_writable(folder: str | Path) -> None:
    """Check that a folder can be written, or made, before work is done for it; leaves nothing there.

    Raises:
        MedsegError: it cannot.
    """
    folder = Path(folder).absolute()
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise _explain(error, folder) from error


def _explain(error: OSError, path: Path) -> MedsegError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"no space left for '{path}'. Free some, or choose another folder.")
    return DataError(f"cannot write '{path}': {error.strerror or error}")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a binary file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; not-a-number and infinity become null, as JSON knows neither."""
    write_text(path, json.dumps(finite(value), indent=2) + "\n")


def finite(value: Any) -> Any:
    """A JSON value with null in place of not-a-number and infinity: what `read_json` returns after `write_json`."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it does not exist or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors on Windows begin files with a mark
    except FileNotFoundError as error:
        raise DataError(f"no such file: '{path}'") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not readable JSON: {error}") from error


def without_paths(text: str, words: Mapping[Path, str]) -> str:
    """A message with words in place of paths and of their folders, whose names are often names of patients."""
    for path in sorted(words, key=lambda path: len(str(path)), reverse=True):  # one may begin like another
        name, word = re.escape(str(path)), words[path]
        inside = r"(?=[/\\])" if os.sep not in str(path) else ""  # a bare name may be a word of the message: `scan`
        text = word.join(re.split(rf"'{name}'|(?<!\w){name}{inside}", text))
    for folder in sorted({path.parent for path in words} - {Path()}, reverse=True):  # the inner ones first
        text = re.sub(rf"(?<!\w){re.escape(f'{folder}{os.sep}')}", "", text)
    return text


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, or of all files below a folder in the order of their names.

    Raises:
        DataError: it cannot be read.
    """
    path, digest = Path(path), hashlib.sha256()
    try:
        for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not part.is_dir():
                with part.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from error
    return digest.hexdigest()


@contextlib.contextmanager
def lock(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder against a second process; the lock dies with its holder, however it ends.

    On a disk without locks, as on some clusters, a warning says so and the folder is not held.

    Args:
        folder: made if needed.
        wait: until the other process lets go, instead of giving up.

    Raises:
        RunError: another process holds it.
        DataError: the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise _explain(error, folder) from error
    with stream:
        if not _locks(stream, folder):
            if not wait:
                raise RunError(
                    f"'{folder}' is in use by another medseg process. Wait for it, or choose another folder."
                )
            progress.say(f"waiting for another medseg process that uses '{folder}'")
            while not _locks(stream, folder):
                time.sleep(_POLL_S)
        yield


def _locks(stream: IO[str], folder: Path) -> bool:
    """Try to take the lock; whether it was free."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        progress.warn(f"'{folder}' cannot be locked ({error.strerror or error}): let no second medseg process use it")
    return True
