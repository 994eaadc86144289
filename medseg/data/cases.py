"""What a dataset is: its cases, and what is said of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from medseg import files
from medseg.errors import DataError, MedsegError
from medseg.labels import Labels
from medseg.wording import few, repeated

MaskValues = tuple[frozenset[int], ...]  # the values besides 0 in each channel of a mask


class Structures(NamedTuple):
    """A mask that DICOM objects (SEG, RTSTRUCT) hold by the names of its structures.

    Args:
        files: of one or more objects.
        labels: of the dataset, which say what value a name has; None for those of the objects alone.
        frames: FrameOfReferenceUIDs of the image; structures in others are not of it. Nothing for all structures.
    """

    files: tuple[Path, ...]
    labels: Labels | None = None
    frames: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """One scan of one patient, with its mask if there is one.

    Args:
        id: unique name within the dataset.
        images: one file (or DICOM folder) a channel, or one that holds all channels.
        label: the mask's file; the first of them where there are several.
        group: the patient, who must not be in both training and test; the id where it is not known.
        split: "train", "validation" or "test" where the dataset declares it.
        about: what else a table of the dataset says of it, by column.
        structures: where the mask is DICOM SEG or RTSTRUCT: what its names mean. See `reading.read_mask`.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str = ""
    split: str | None = None
    about: Mapping[str, str] = field(default_factory=dict, compare=False)
    structures: Structures | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.id)
        if not self.id or self.id.startswith(".") or any(mark in self.id for mark in "/\\\0"):
            raise DataError(
                f"a case's id becomes a file's name: '{self.id}' is empty, begins with a dot or holds a slash"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of images and mask."""
        masks = self.structures.files if self.structures else (self.label,) if self.label else ()
        return (*self.images, *masks)

    def replace(self, **changes: Any) -> Case:
        """A copy with other fields."""
        return replace(self, **changes)

    def without_paths(self, text: str) -> str:
        """A message about this case that says "the image" or "the mask" for its paths: they may hold a patient's name."""
        one = len(self.images) == 1
        words = {path: "the image" if one else f"the file of channel {n}" for n, path in enumerate(self.images, 1)}
        return files.without_paths(text, words | dict.fromkeys(self.files[len(self.images) :], "the mask"))

    def reason(self, error: Exception) -> str:
        """Why this case cannot be used, in words without its paths; those of other libraries may quote the patient's data."""
        if isinstance(error, MedsegError):
            return self.without_paths(str(error))
        return f"a file is damaged, or of a kind that cannot be read ({type(error).__name__}). Export it again."


@contextlib.contextmanager
def named(case: Case) -> Iterator[None]:
    """Prefix errors with the id of their case, and remove its paths from them."""
    try:
        yield
    except MedsegError as error:
        raise type(error)(f"{case.id}: {case.without_paths(str(error))}") from error


@dataclass(frozen=True)
class Dataset:
    """Cases that belong together, and what is said of all of them.

    Args:
        name: of the dataset.
        layout: how it is stored, in words.
        cases: in the order in which the dataset lists them.
        labels: the declared structures; None where none are declared.
        channels: name or modality of each channel.
        root: the folder it was found in.
        incomplete: the cases that were set aside because a file is missing, by id, and why (see `layouts.find`).

    Raises:
        DataError: no cases, or two of them share an id.
    """

    name: str
    layout: str
    cases: tuple[Case, ...]
    labels: Labels | None
    channels: tuple[str, ...]
    root: Path
    incomplete: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError(f"'{self.root}' holds no cases ({self.layout}). Put at least two labelled scans there.")
        if shared := repeated(case.id for case in self.cases):
            raise DataError(
                f"cases must have different ids, but these are used twice: {few(shared)}. Rename, or give ids in a CSV."
            )

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that have a mask."""
        return tuple(case for case in self.cases if case.label)

    def replace(self, **changes: Any) -> Dataset:
        """A copy with other fields."""
        return replace(self, **changes)
