"""Which prediction goes with which reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from medseg import io, layouts, progress
from medseg.cases import Case, few
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.reading import refuse_negative
from medseg.scans import without_probabilities
from medseg.volume import Volume


class Pair(NamedTuple):
    """One case to measure; masks are volumes or files, which are read when their turn comes.

    Args:
        case: the case's id.
        prediction: the mask to judge.
        reference: the mask to judge it by.
        group: the patient, where a patient has several cases; "" is the case itself.
        images: the scan, where it is known: one file a channel.
        about: what else is known of the case, by the columns of its table.
    """

    case: str
    prediction: Volume | Path | str
    reference: Volume | Path | str
    group: str = ""
    images: tuple[Path, ...] = ()
    about: Mapping[str, str] = MappingProxyType({})


def read_mask(mask: Volume | Path | str) -> Volume:
    """A mask that is a volume already, or in a file."""
    return mask if isinstance(mask, Volume) else io.read(mask, "labels")


def pair_folders(predictions: str | Path, references: str | Path, only: Set[str] | None = None) -> list[Pair]:
    """Pair masks of two folders by name (without ending), of all references or of `only` some; two files are one pair.

    References may be a whole dataset: its masks then go by the ids of their cases, and its patients are known.

    Raises:
        DataError: a folder is missing or empty, or a mask of a case that counts: leaving it out would flatter the result.
    """
    predictions, references = Path(predictions), Path(references)
    if predictions.is_file() and references.is_file():
        return [Pair(io.stem(references), predictions, references)]
    known = _dataset(references)
    found, wanted = (
        _masks(predictions),
        {name: case.label for name, case in known.items() if case.label} or _masks(references),
    )
    if only is not None:
        if unknown := sorted(only - wanted.keys()):
            raise DataError(f"'{references}' lacks references of cases that count: {few(unknown, 5)}")
        wanted = {name: wanted[name] for name in only}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} references have no prediction of the same name: {few(missing, 5)}"
            + (f"; predictions without reference: {few(extra, 5)}" if extra else "")
            + ". Predict or rename them, or take the references away."
        )
    if extra:
        progress.warn(f"{len(extra)} predictions have no reference and are not evaluated: {few(extra, 5)}")
    groups = {name: case.group for name, case in known.items()}
    return [Pair(name, found[name], wanted[name], groups.get(name, "")) for name in sorted(wanted)]


def _dataset(folder: Path) -> dict[str, Case]:
    """The labelled cases of a whole dataset, by the ids that its predictions have; none where a folder holds masks alone."""
    try:
        return {case.id: case for case in layouts.find(folder).labelled}
    except DataError:
        return {}


def labels_in(pairs: Iterable[Pair | tuple[Any, ...]]) -> Labels:
    """Labels for masks whose meaning nobody declared: each value that any prediction or reference holds is one.

    Raises:
        DataError: a value is negative.
    """
    found = {
        pair.case: tuple(frozenset(map(int, np.unique(read_mask(mask).array))) for mask in pair[1:3])
        for pair in (Pair(*given) for given in pairs)
    }
    refuse_negative(found)
    return Labels.of(sorted({value for masks in found.values() for mask in masks for value in mask} - {0}))


def _masks(folder: Path) -> dict[str, Path]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    # macOS leaves a ._case.nii.gz beside each file that it copies.
    paths = [folder / name for name in names if name.lower().endswith(io.SUFFIXES) and not name.startswith(".")]
    paths = without_probabilities(paths)
    masks = {io.stem(path): path for path in paths}
    if len(masks) < len(paths):
        raise DataError(f"'{folder}' holds files that differ only in their ending. Keep one mask a case.")
    if not masks:
        raise DataError(f"'{folder}' is no folder of masks. Give two, or two files; endings: {', '.join(io.SUFFIXES)}")
    return masks
