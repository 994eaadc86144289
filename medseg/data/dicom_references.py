"""Which objects of labels (SEG, RTSTRUCT) belong to which DICOM series, and which of them count."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg import io, progress
from medseg.data.cases import Case, Structures
from medseg.data.dicom_series import Series, series_of
from medseg.errors import DataError, MedsegError
from medseg.io import dicom

References = tuple[io.References, ...]  # of an object, one for each frame of reference


def called(files: Sequence[Path], root: Path, only: str) -> list[Path]:
    """The objects with a word in their path or title, ignoring case; all of them without a word.

    Raises:
        DataError: there are none.
    """
    if not only:
        return [*files]
    if not (picked := [file for file in files if _is_called(file, root, only.casefold())]):
        raise DataError(
            f"none of {len(files)} SEG or RTSTRUCT objects has '{only}' in the name of its file or folder, its description or label."
        )
    progress.say(
        f"{len(picked)} of {len(files)} SEG or RTSTRUCT objects have the name that was asked for; the others are not used"
    )
    return picked


def _is_called(file: Path, root: Path, word: str) -> bool:
    if word in str(file.relative_to(root)).casefold():
        return True
    with contextlib.suppress(MedsegError):  # a damaged one is reported where no word was given
        return any(word in refers.title.casefold() for refers in io.references(file))
    return False


def matched(listed: Sequence[Series], files: Sequence[Path]) -> dict[Series, Structures]:
    """The objects of each series that has some.

    Raises:
        DataError: none has.
    """
    refers: dict[Path, References] = {}
    for file in files:
        with contextlib.suppress(MedsegError):
            refers[file] = io.references(file)
    drawn, strange = _gathered(listed, refers)
    if lost := strange + len(files) - len(refers):
        progress.warn(
            f"{lost} of {len(files)} SEG or RTSTRUCT objects belong to no series here, or are damaged; not used"
        )
    if bare := len(listed) - len(drawn):
        progress.say(f"{bare} of {len(listed)} DICOM series have no structures; not used")
    if not drawn:
        raise DataError(
            "the SEG and RTSTRUCT objects belong to none of the DICOM series here. Put the series beside them."
        )
    return drawn


def in_its_frames(case: Case) -> Case:
    """A case of a table with those of its objects, and their frames of reference, that belong to its series.

    It stays as it is where all lie in one frame, or none belongs: whoever wrote the table knows better than UIDs that were replaced.
    """
    assert case.structures is not None
    files = case.structures.files
    if case.structures.frames or not dicom.matches(case.images[0]):
        return case
    refers = {file: io.references(file) for file in files}
    if len({each.frame for found in refers.values() for each in found}) < 2:
        return case
    drawn, lost = _gathered([series_of(case.images[0])], refers)
    if not drawn:
        return case
    if lost:
        progress.warn(f"{case.id}: {lost} of {len(files)} SEG or RTSTRUCT objects belong to another series; not used")
    (structures,) = drawn.values()
    return case.replace(label=structures.files[0], structures=structures)


def _gathered(listed: Sequence[Series], refers: Mapping[Path, References]) -> tuple[dict[Series, Structures], int]:
    """The objects of each series that has some, and how many belong to none."""
    drawn: dict[Series, Structures] = {}
    lost = 0
    for file, references in refers.items():
        found = [(series, frame.frame) for frame in references for series in _belonging(frame, listed)]
        lost += not found
        for series, frame in found:
            before = drawn.get(series, Structures(()))
            files_ = tuple(dict.fromkeys((*before.files, file)))
            drawn[series] = Structures(files_, frames=before.frames | {frame})
    return drawn, lost


def _belonging(refers: io.References, listed: Sequence[Series]) -> list[Series]:
    """The series that structures in one frame of reference were drawn on."""
    named = [series for series in listed if series.uid in refers.series]
    imaged = [series for series in listed if series.instances & refers.instances]
    placed = [series for series in listed if refers.frame and series.frame == refers.frame]
    return [series for series in named if series in imaged] or named or imaged or placed
