"""Which prediction goes with which reference."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg import io, layouts, objects, progress
from medseg.cases import Case, few
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.reading import read_mask, refuse_negative
from medseg.scans import without_probabilities
from medseg.volume import Geometry, Volume

Mask = Volume | Path | str | Case


class Pair(NamedTuple):
    """One case to measure; masks are volumes, files, or of cases of a dataset, and are read when their turn comes.

    Args:
        case: the case's id.
        prediction: the mask to judge.
        reference: the mask to judge it by.
        group: the patient, where a patient has several cases; "" is the case itself.
    """

    case: str
    prediction: Mask
    reference: Mask
    group: str = ""


def read_masks(pair: Pair, labels: Labels | None = None) -> tuple[Volume, Volume]:
    """Prediction and reference; structures in DICOM objects get their values by the names of `labels`, on the grid of the other.

    Raises:
        DataError: a file cannot be read; or both are DICOM objects, or nobody says what values their names have.
    """
    first, second = pair.prediction, pair.reference
    if _is_object(first):
        if _is_object(second):
            raise DataError(
                f"{pair.case}: both masks are DICOM objects, which have no grid. Give the references with their series, as a dataset."
            )
        reference = _read(second, labels)
        return _read(first, labels, reference.geometry), reference
    prediction = _read(first, labels)
    return prediction, _read(second, labels, prediction.geometry)


def _is_object(mask: Mask) -> bool:
    return isinstance(mask, Path | str) and io.holds_structures(mask)


def _read(mask: Mask, labels: Labels | None, grid: Geometry | None = None) -> Volume:
    if isinstance(mask, Volume):
        return mask
    if isinstance(mask, Case):
        return read_mask(mask, labels=labels)
    if grid is None or not _is_object(mask):
        return io.read(mask, "labels")
    if labels is None:
        raise DataError("a DICOM object knows its labels by name: name the model that says their values (--model RUN)")
    return objects.read([Path(mask)], grid, labels)


def pair_folders(
    predictions: str | Path, references: str | Path, only: Set[str] | None = None, modality: str | None = None
) -> list[Pair]:
    """Pair masks of two folders by name (without ending), of all references or of `only` some; two files are one pair.

    References may be a whole dataset: its masks then go by the ids of their cases, and its patients are known. Of a tree of DICOM
    studies, `modality` chooses the series.

    Raises:
        DataError: a folder is missing or empty, or a mask of a case that counts: leaving it out would flatter the result.
    """
    predictions, references = Path(predictions), Path(references)
    if predictions.is_file() and references.is_file():
        return [Pair(io.stem(references), predictions, references)]
    known = _dataset(references, modality)
    masks = {name: case.label if case.label and not case.structures else case for name, case in known.items()}
    found, wanted = _masks(predictions), dict[str, Mask](masks or _masks(references))
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


def _dataset(folder: Path, modality: str | None) -> dict[str, Case]:
    """The labelled cases of a whole dataset, by the ids that its predictions have; none where a folder holds masks alone."""
    try:
        return {case.id: case for case in layouts.find(folder, modality).labelled}
    except DataError:
        return {}


def labels_in(pairs: Iterable[Pair | tuple[Any, ...]]) -> Labels:
    """Labels for masks whose meaning nobody declared: each value that any prediction or reference holds is one.

    Raises:
        DataError: a value is negative.
    """
    found = {
        pair.case: tuple(frozenset(map(int, np.unique(mask.array))) for mask in read_masks(pair))
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
