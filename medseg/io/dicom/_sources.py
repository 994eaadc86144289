"""Where DICOM files lie: in folders, on a CD with a DICOMDIR, in a zip. Their names open them, and mean nothing else."""

from __future__ import annotations

import functools
import io
import mmap
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from medseg import memory
from medseg.errors import DataError

SUFFIXES = (".dcm", ".ima", ".dicom")
START = 132  # bytes by which a DICOM file is known
_BARE = b"DICM\2\0"  # how one begins of which the preamble alone, the 128 before, is lost
_LARGEST_MEMBER = 4 << 30  # bytes of a file in a zip
_DIRECTORY = "DICOMDIR"
_RECORDS = b"\4\0\x20\x12SQ\0\0"  # how a DICOMDIR's list of records begins, before its length
_OPEN = 0xFFFFFFFF  # a length that is not said
_COPIES = 2  # of a member while it is taken apart
_MOST_MEMBERS = 1_000_000
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_GONE = "\0"  # a name that no file has


@dataclass(frozen=True, slots=True)
class Source:
    """One file, on the disk or in a zip.

    Args:
        path: of the file, or of the zip.
        member: name within the zip; empty for a file.
        stamp: time of change in ns and size, by which a cache knows that the file is another one.
    """

    path: Path
    member: str = ""
    stamp: tuple[int, int] = (0, 0)

    def open(self) -> IO[bytes]:
        """The bytes from the first on; a read beyond the end asks for no more memory than the file has.

        Where the preamble alone is lost, an empty one stands before them.
        """
        if self.member:
            member = _archive(self.path, self.stamp[0]).open(self.member)
            return _with_preamble(member) if member.peek(len(_BARE)).startswith(_BARE) else member  # type: ignore[attr-defined]
        with self.path.open("rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                return io.BytesIO()  # cannot be mapped
            mapped: Any = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return _with_preamble(mapped) if mapped[: len(_BARE)] == _BARE else mapped

    def open_anywhere(self) -> IO[bytes]:
        """The same for going to and fro: a member of a zip is unpacked in memory, if there is room for it.

        Raises:
            DataError: there is none: a small zip may hold gigabytes of nothing. No path is named.
        """
        if not self.member:
            return self.open()
        if (needed := _COPIES * self.stamp[1]) > (free := memory.free_bytes()):
            raise DataError(
                f"takes {needed / 1e9:.1f} GB of memory to unpack from its zip, but {free / 1e9:.1f} GB are free. Unpack it yourself"
            )
        with self.open() as stream:
            return io.BytesIO(stream.read())

    @property
    def is_gone(self) -> bool:
        """Whether a DICOMDIR names it, and it is not there."""
        return self.path.name == _GONE

    @property
    def folder(self) -> Path:
        """Where it lies; a zip is a folder here."""
        return self.path if self.member else self.path.parent


def _with_preamble(stream: IO[bytes]) -> IO[bytes]:
    with stream:
        return io.BytesIO(bytes(128) + stream.read())


def is_archive(path: Path) -> bool:
    """Whether this is a zip."""
    return path.suffix.lower() == ".zip" and path.is_file()


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins so is DICOM: by its magic word, or, where that is lost with the preamble, by a first tag with a VR.

    Files of old scanners begin with group 2 or 8 at once, in explicit VR or with the length of a short value.
    """
    if start.startswith(_BARE) or start[128:132] == b"DICM":
        return True
    little = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return little and (start[4:6] in (b"UL", b"CS", b"UI", b"OB", b"DA", b"TM") or start[5:8] == b"\x00\x00\x00")


def sources(path: Path) -> list[Source]:
    """All files that may be DICOM in a file, a folder and those below, a DICOMDIR or a zip.

    Raises:
        DataError: a zip that cannot be opened, or with members of an absurd size or of one name.
    """
    if path.is_dir():
        return list(_below(path))
    if is_archive(path):
        return _members(path)
    if path.name.upper() == _DIRECTORY:
        return _referenced(path)
    return [_file(path)]


def _file(path: Path) -> Source:
    status = path.stat()
    return Source(path, "", (status.st_mtime_ns, status.st_size))


def _below(folder: Path) -> Iterator[Source]:
    for here, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            hidden = name.startswith(".") or name.upper() == _DIRECTORY  # which only names the others
            if not hidden and path.is_file():  # neither a socket nor a link to nowhere
                yield _file(path)


def _raise(error: OSError) -> None:
    raise error  # what may not be listed might hold the other half of a series


def _members(path: Path) -> list[Source]:
    stamp = path.stat().st_mtime_ns
    members = [item for item in _archive(path, stamp).infolist() if not item.is_dir()]
    largest = max((item.file_size for item in members), default=0)
    if len(members) > _MOST_MEMBERS or largest > _LARGEST_MEMBER:
        raise DataError(
            f"'{path}' promises {len(members)} files of up to {largest:,} bytes; at most {_MOST_MEMBERS:,} of "
            f"{_LARGEST_MEMBER:,} are read from a zip. Unpack it yourself if you trust it."
        )
    if any(item.flag_bits & 1 for item in members):
        raise DataError(f"'{path}' is locked with a password. Unpack it first.")
    if any(item.compress_type not in _PACKINGS for item in members):
        raise DataError(
            f"'{path}' is packed by a method that is not read, such as Windows' Deflate64. Unpack it first."
        )
    wanted = [item for item in members if not Path(item.filename).name.startswith(".")]
    if doubled := len(wanted) - len({item.filename for item in wanted}):
        raise DataError(
            f"'{path}' holds {doubled} of {len(wanted)} files under the name of another one, so that only the last of a name can "
            "be opened. Pack it again from its source."
        )
    return [Source(path, item.filename, (stamp, item.file_size)) for item in wanted]


@functools.lru_cache(maxsize=2)  # to open one takes as long as to read a hundred headers
def _archive(path: Path, stamp: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"'{path}' is no zip, or it is damaged. Copy it again from its source.") from error


def _referenced(path: Path) -> list[Source]:
    """The files that a DICOMDIR names, as far as they lie in or below its own folder; see `Source.is_gone` for the others.

    A CD says NAMES\\IN\\CAPITALS; copies on a disk are often in small letters.
    """
    import pydicom

    try:
        if _is_cut_off(path.read_bytes()):
            raise EOFError
        records = pydicom.dcmread(path).get("DirectoryRecordSequence") or []
        names = [_words(record.get("ReferencedFileID")) for record in records]
    except Exception as error:  # whatever a bad byte leads to; its text may quote the patient's data
        raise DataError(
            f"'{path}' is a damaged DICOMDIR ({type(error).__name__}). Name its folder instead: all files there are looked at."
        ) from error
    there = {source.path.relative_to(path.parent).as_posix().lower(): source for source in _below(path.parent)}
    wanted = dict.fromkeys("/".join(words).lower() for words in names if words)
    if not wanted:
        raise DataError(
            f"'{path}' is a DICOMDIR that names no files. Name its folder instead: all files there are looked at."
        )
    if not any(name in there for name in wanted):
        raise DataError(
            f"'{path}' names {len(wanted)} files, none of which lies in its folder. Copy the whole CD, or name the folder."
        )
    return [there[name] if name in there else _missing(path.parent, name, there) for name in wanted]


def _is_cut_off(directory: bytes) -> bool:
    """Whether the list of records is longer than the file: where it ends between two of them, pydicom takes those before for all."""
    start = directory.find(_RECORDS) + len(_RECORDS)
    length = int.from_bytes(directory[start : start + 4], "little")
    return start >= len(_RECORDS) and length != _OPEN and start + 4 + length > len(directory)


def _missing(root: Path, name: str, there: Mapping[str, Source]) -> Source:
    """A file that cannot be opened, in the folder of those that lie where it should."""
    beside = name.rpartition("/")[0]
    folders = (source.path.parent for other, source in there.items() if other.rpartition("/")[0] == beside)
    return Source(next(folders, root) / _GONE)


def _words(name: Any) -> list[str]:
    return [] if not name else [name] if isinstance(name, str) else [str(word) for word in name]
