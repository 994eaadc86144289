"""What a dataset is, and how its cases are divided: always whole patients, every label in every part where it can be."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg import files
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.labels import Labels

Presence = Mapping[str, frozenset[str]]
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
        group: whoever must not be divided between training and test: the patient. The id where nobody says.
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
        """Of images and mask."""
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


@contextlib.contextmanager
def named(case: Case) -> Iterator[None]:
    """Begin a user's errors with the id of the case that they are about, and leave its paths out."""
    try:
        yield
    except MedsegError as error:
        raise type(error)(f"{case.id}: {case.without_paths(str(error))}") from error


@dataclass(frozen=True)
class Dataset:
    """Cases that belong together, and what is said of all of them.

    Args:
        name: how people call it.
        layout: how it is stored, in words.
        cases: in the order in which the dataset lists them.
        labels: the declared structures; None where only the masks know.
        channels: name or modality of each channel.
        root: the folder it was found in.

    Raises:
        DataError: no cases, or two of them share an id.
    """

    name: str
    layout: str
    cases: tuple[Case, ...]
    labels: Labels | None
    channels: tuple[str, ...]
    root: Path

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError(f"'{self.root}' holds no cases ({self.layout}). Put at least two labelled scans there.")
        if shared := [name for name, count in Counter(case.id for case in self.cases).items() if count > 1]:
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


@dataclass(frozen=True)
class Fold:
    """Ids of the cases to learn from, and of those that are kept apart."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def few(items: Iterable[object], shown: int = 3) -> str:
    """The first names of a list and how many more there are, for messages."""
    names = [str(item) for item in items]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def presence(values: Mapping[str, MaskValues], labels: Labels) -> dict[str, frozenset[str]]:
    """Names of the labels in each case, whose masks hold `values`, in one channel or one a label: what `folds` spreads."""
    return {case: frozenset(_present(mask, labels)) for case, mask in values.items()}


def _present(mask: MaskValues, labels: Labels) -> Iterator[str]:
    if len(mask) == 1:
        return (item.name for item in labels if mask[0] & set(item.values))
    return (name for name, found in zip(labels.names, mask, strict=False) if found - {labels.ignore})


def parse_fold(text: str) -> tuple[int, int]:
    """`0/5` -> (0, 5): the first of five.

    Raises:
        ConfigError: not of that form, or no such fold.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None or int(match[1]) >= int(match[2]) or int(match[2]) < 2:
        raise ConfigError(f"a fold is written i/n, i from 0 to n-1 and n at least 2, for instance 0/5; got '{text}'")
    return int(match[1]), int(match[2])


def declared(cases: Sequence[Case]) -> Fold | None:
    """The split that the dataset itself declares: its `test` cases against the rest; None where it declares none."""
    labelled = [case for case in cases if case.label]
    test = {case.id for case in labelled if case.split == "test"}
    return _apart([case.id for case in labelled], test) if test else None


def shared_groups(cases: Sequence[Case], fold: Fold) -> tuple[str, ...]:
    """Ids of the cases kept apart whose patient (group) is learned from all the same: scores on them flatter."""
    learned, apart = set(fold.train), set(fold.test)
    groups = {case.group for case in cases if case.id in learned}
    return tuple(case.id for case in cases if case.id in apart and case.group in groups)


def folds(cases: Sequence[Case], n: int, seed: int = 0, presence: Presence | None = None) -> tuple[Fold, ...]:
    """Divide cases into n folds of whole groups, each label spread evenly over them.

    Cases without a mask, and cases that the dataset declares as `test`, are in no fold.

    Args:
        cases: all cases, in any order: the result depends on ids, groups (not their names), n, seed and presence alone.
        n: number of folds, at least 2.
        seed: of the shuffle that breaks ties.
        presence: names of the labels in each case, by id, where known; a case that is not listed counts as having none.

    Raises:
        ConfigError: fewer groups than folds.
    """
    ids = _usable(cases)
    groups: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        if case.id in ids:
            groups.setdefault(case.group, []).append(case.id)
    if not 2 <= n <= len(groups):
        raise ConfigError(
            f"{n} folds need at least {max(n, 2)} labelled patients (groups), got {len(groups)}. "
            "Ask for fewer with --fold 0/N, hold none back with --fold none, or add cases."
        )
    parts = _deal(list(groups.values()), n, seed, presence or {})
    return tuple(_apart(ids, part) for part in parts)


def nnunet_folds(cases: Sequence[Case]) -> tuple[Fold, ...]:
    """nnU-Net's own five folds, so that numbers can stand beside its: sklearn's `KFold(5, shuffle=True, random_state=12345)`.

    They take no account of groups; where a patient has several cases, they leak.

    Raises:
        ConfigError: fewer than five cases.
    """
    ids = _usable(cases)
    if len(ids) < 5:
        raise ConfigError(f"nnU-Net's folds need at least 5 labelled cases, got {len(ids)}")
    order = np.arange(len(ids))
    np.random.RandomState(12345).shuffle(order)
    return tuple(_apart(ids, {ids[n] for n in part}) for part in np.array_split(order, 5))


def inner_split(
    train: Sequence[Case], share: float = 0.1, seed: int = 0, presence: Presence | None = None, most: int = 24
) -> Fold:
    """Keep some training cases aside, on which choices are made: the cases declared `validation`, else a stratified draw.

    Args:
        train: the training cases of a fold.
        share: of the cases to keep aside; at least three where there are nine, and at most `most` (more only where each patient has more).
        seed: of the draw.
        presence: as for `folds`.
        most: cases that a validation may have, for it is paid for many times.

    Raises:
        ConfigError: the cases come from fewer than two patients (groups).
    """
    ids = _usable(train)
    chosen = {case.id for case in train if case.label and case.split == "validation"}
    if chosen and len(chosen) < len(ids):
        return _apart(ids, chosen)
    target = min(most, max(1, min(3, len(ids) // 3), round(share * len(ids))))
    groups = len({case.group for case in train if case.id in ids})
    parts = folds(train, max(2, min(groups, -(-len(ids) // target))), seed, presence)
    return min(parts, key=lambda part: abs(len(part.test) - target))


def _apart(ids: Sequence[str], test: Container[str]) -> Fold:
    return Fold(tuple(i for i in ids if i not in test), tuple(i for i in ids if i in test))


def _usable(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(sorted(case.id for case in cases if case.label and case.split != "test"))


def _deal(groups: list[list[str]], n: int, seed: int, presence: Presence) -> list[set[str]]:
    """Iterative stratification (Sechidis et al. 2011, algorithm 1), of groups: the rarest label is dealt out first,
    each group to the part that lacks that label most, then to the smallest."""
    order = np.random.default_rng(seed).permutation(len(groups))
    waiting = sorted((groups[i] for i in order), key=len, reverse=True)
    have = [Counter(label for i in group for label in presence.get(i, ())) for group in waiting]
    parts: list[set[str]] = [set() for _ in range(n)]
    filled: list[Counter[str]] = [Counter() for _ in range(n)]
    left = list(range(len(waiting)))
    while left:
        remaining = Counter(label for g in left for label in have[g])
        label = min(remaining, key=lambda name: (remaining[name], name), default="")
        for g in [g for g in left if have[g][label]] or list(left):
            part = min(range(n), key=lambda p: (filled[p][label], len(parts[p]), p))
            parts[part].update(waiting[g])
            filled[part].update(have[g])
            left.remove(g)
    return parts
