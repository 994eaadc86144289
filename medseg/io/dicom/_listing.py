"""What a file, a folder, a CD or a zip holds: its volumes, what was set aside, and what is damaged. From headers alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from medseg import progress
from medseg.errors import DataError
from medseg.io import _common
from medseg.io.dicom import _describe, _grouping, _headers
from medseg.io.dicom._addresses import addresses
from medseg.io.dicom._found import Found
from medseg.io.dicom._grid import Stack
from medseg.io.dicom._headers import Read
from medseg.io.dicom._planes import File
from medseg.io.dicom._sources import Source, sources

_ALONE = 64  # files for which no second thread is started
_THREADS = 8  # that wait for the disk; Python reads headers one at a time


@dataclass(frozen=True)
class Listing:
    """All that was found.

    Args:
        path: in which.
        volumes: by number of series and time.
        aside: how many files are of what other kind.
        damaged: unreadable files of which the series is not known.
    """

    path: Path = field(repr=False)
    volumes: tuple[Found, ...]
    aside: dict[str, int]
    damaged: tuple[File, ...]

    def pick(self, word: str) -> tuple[Found, ...]:
        """The volumes of a series: by its number, its UID or id, or a part of its description in letters of any size.

        Raises:
            DataError: there is none.
        """
        for names in (_number, _names, _description):
            if chosen := tuple(found for found in self.volumes if names(found, word)):
                return chosen
        numbers = ", ".join(sorted({str(found.file.number) for found in self.volumes}))
        raise DataError(
            f"no series has the number, UID or description '{word}'. There are the numbers {numbers or '-'}."
        )

    def table(self) -> str:
        """A line a volume, and what was set aside."""
        return _describe.table(self.volumes, self.aside, self.damage)

    @property
    def damage(self) -> list[str]:
        """What is wrong with the damaged files, a line for each reason."""
        counts = Counter(file.problem for file in self.damaged)
        return [f"{'a file' if n == 1 else f'each of {n} files'} {problem}" for problem, n in counts.items()]

    def _repr_html_(self) -> str:
        return f"<pre>{self.table()}</pre>"


def _number(found: Found, word: str) -> bool:
    return str(found.file.number) == word


def _names(found: Found, word: str) -> bool:
    return word in (found.file.series, found.id, found.id.partition("-")[0])


def _description(found: Found, word: str) -> bool:
    return word.lower() in found.file.description.lower()


def find(path: Path) -> Listing:
    """The volumes of a file, a folder and those below, a DICOMDIR or a zip; nothing but headers is read.

    Raises:
        DataError: a zip or a DICOMDIR that cannot be used.
    """
    with _common.quiet():
        there = sources(path)
    with _common.quiet(), ThreadPoolExecutor(min(_THREADS, 1 + len(there) // _ALONE)) as pool:
        reads = progress.track(pool.map(_headers.read, there), "reading DICOM headers", len(there))
        known = [read for read in reads if read is not None]
    aside = Counter(file.aside for file, _ in known if file.aside and file.aside != "directory")
    used = [(file, planes) for file, planes in known if not file.aside]
    lost, stray = _lost(used)
    series: dict[str, list[Read]] = defaultdict(list)
    for file, planes in used:
        if file.series or planes:
            series[file.series].append((file, planes))
    volumes = [found for name, reads in series.items() for found in _volumes(reads, lost[name])]
    volumes.sort(key=lambda found: (found.file.number is None, found.file.number or 0, found.file.series))
    return Listing(path, _with_paths(path, volumes, stray), dict(aside), tuple(stray))


def _with_paths(path: Path, volumes: Sequence[Found], stray: Sequence[File]) -> tuple[Found, ...]:
    files = [_files(found) for found in volumes]
    paths = addresses(path, [found.id for found in volumes], files, (file.source.path for file in stray))
    return tuple(replace(found, path=own) for found, own in zip(volumes, paths, strict=True))


def _files(found: Found) -> set[Path]:
    """The files of a volume, with those that hold copies of its images."""
    planes = [each for plane in found.stack.planes for each in (plane, *plane.copies)]
    return {plane.file.source.path for plane in planes} or {found.file.source.path}


def _lost(reads: Sequence[Read]) -> tuple[Counter[str], list[File]]:
    """How many files of each series are damaged, and the damaged ones of which the series is not known.

    Where a folder holds files of one series alone, the damaged file among them is of that series too.
    """
    here: dict[Hashable, set[str]] = defaultdict(set)
    for file, _ in reads:
        if file.series:
            here[_place(file.source)].add(file.series)
    lost, stray = Counter[str](), list[File]()
    for file, _ in reads:
        if file.series:
            lost[file.series] += file.problem == _headers.CUT_OFF
        elif file.problem:
            beside = here[_place(file.source)]
            if len(beside) == 1:
                lost[next(iter(beside))] += 1
            else:
                stray.append(file)
    return lost, stray


def _place(source: Source) -> Hashable:
    return source.folder, str(PurePosixPath(source.member).parent)


def _volumes(reads: Sequence[Read], lost: int) -> list[Found]:
    """The volumes of one series."""
    first = reads[0][0]
    problem = f"{lost} of its files missing, damaged or cut off: export the series again" if lost else ""
    whole = _grouping.volumes([plane for _, planes in reads for plane in planes])
    stacks = [(stack, stack.planes[0].file, problem) for stack in whole]
    if lost and not stacks:
        stacks = [(Stack(()), first, problem)]
    refused = {file.problem: file for file, _ in reads if file.problem and file.problem != _headers.CUT_OFF}
    stacks += [(Stack(()), file, problem) for problem, file in refused.items()]
    names = [_common.digest(first.series) + (f"-{n}" if n > 1 else "") for n in range(1, len(stacks) + 1)]
    labels = _describe.labels([stack for stack, _, _ in stacks])
    return [
        Found(name, file.source.path, file, stack, label, problem)
        for name, (stack, file, problem), label in zip(names, stacks, labels, strict=True)
    ]
