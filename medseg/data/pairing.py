"""Which prediction goes with which reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from medseg import io, progress
from medseg.data import dicom_structures, layouts, manifest
from medseg.data.cases import Case
from medseg.data.reading import read_mask, refuse_negative
from medseg.data.scans import without_probabilities
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume
from medseg.wording import counted, few

Mask = Volume | Path | str | Case

_UNKNOWN = "a DICOM object knows its labels by name: name the model that says their values (--model RUN)"


class Pair(NamedTuple):
    """One case to measure; masks are volumes, files, or of cases of a dataset, and are read when their turn comes.

    Args:
        case: the case's id.
        prediction: the mask to judge.
        reference: the mask to judge it by.
        group: the patient, where a patient has several cases; "" is the case itself.
        images: the scan, where it is known: one file per channel.
        about: what else is known of the case, by the columns of its table.
        declared: what the values of the reference mean, where its dataset says so.
    """

    case: str
    prediction: Mask
    reference: Mask
    group: str = ""
    images: tuple[Path, ...] = ()
    about: Mapping[str, str] = MappingProxyType({})
    declared: Labels | None = None


def read_masks(masks: Iterable[Mask], labels: Labels | None = None) -> list[Volume]:
    """Masks of one scan; structures in DICOM objects get their values by the names of `labels`, on the grid of the others.

    Raises:
        DataError: a file cannot be read; or all are DICOM objects, or nobody says what values their names have.
    """
    given = list(masks)
    read = {number: _read(mask, labels) for number, mask in enumerate(given) if not _is_object(mask)}
    if not read:
        raise DataError(
            "both masks are DICOM objects, which have no grid. Give the references with their series, as a dataset."
        )
    grid = next(iter(read.values())).geometry
    return [read[n] if n in read else _read(mask, labels, grid) for n, mask in enumerate(given)]


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
        raise DataError(_UNKNOWN)
    return dicom_structures.read([Path(mask)], grid, labels)


def pair_folders(
    predictions: str | Path,
    references: str | Path,
    only: Set[str] | None = None,
    table: str | Path | None = None,
    modality: str | None = None,
) -> list[Pair]:
    """Pair masks of two folders by name (without ending), of all references or of `only` some; two files are one pair.

    Args:
        predictions: a folder of masks, a run (its masks of held-out cases), or one mask.
        references: a folder of masks, or one; or a whole dataset: its masks then go by the ids of their cases, and its patients
            and scans are known.
        only: the cases that count.
        table: a CSV with a column `id` that says more about the cases.
        modality: of a tree of DICOM studies, the series to take.

    Raises:
        DataError: a folder is missing or empty, or a mask of a case that counts: leaving it out would flatter the result.
    """
    predictions, references = Path(predictions), Path(references)
    if predictions.is_file() and references.is_file() and references.suffix.lower() != ".csv":
        return [Pair(io.stem(references), predictions, references)]
    known, declared = _dataset(references, modality)
    found, wanted = _predictions(predictions), _references(known, references)
    extra = sorted(found.keys() - wanted.keys())
    if only is not None:
        if unknown := sorted(only - wanted.keys()):
            raise DataError(f"'{references}' lacks references of cases that count: {few(unknown, 5)}")
        wanted = {name: wanted[name] for name in only}
    if missing := sorted(wanted.keys() - found.keys()):
        raise DataError(
            f"{len(missing)} of {len(wanted)} references have no prediction of the same name: {few(missing, 5)}"
            + (f"; predictions without reference: {few(extra, 5)}" if extra else "")
            + ". Predict or rename them, or take the references away."
        )
    if extra:
        progress.warn(f"not evaluated: {counted(len(extra), 'prediction')} without a reference: {few(extra, 5)}")
    told = manifest.about_cases(Path(table)) if table else {}
    if table and (untold := sorted(wanted.keys() - told.keys())):
        raise DataError(f"'{table}' says nothing about {len(untold)} of {len(wanted)} cases: {few(untold, 5)}")
    pairs = (_pair(name, found[name], wanted[name], known.get(name), told.get(name, {})) for name in sorted(wanted))
    return [pair._replace(declared=declared) for pair in pairs]


class Shared(NamedTuple):
    """Cases that two folders of masks both have, and how many one alone has."""

    cases: set[str]
    alone: tuple[int, int]


def shared(a: str | Path, b: str | Path, references: str | Path, modality: str | None = None) -> Shared:
    """Which cases with a reference two folders (or runs) have masks of.

    Raises:
        DataError: there is none that both have.
    """
    one, other = _predictions(a).keys(), _predictions(b).keys()
    known = _references(_dataset(Path(references), modality)[0], Path(references)).keys()
    if not (both := one & other & known):
        raise DataError(f"no case has a reference and a mask in both: one has {few(one, 3)}, the other {few(other, 3)}")
    if alone := sorted((one ^ other) & known):
        progress.warn(f"left out: {counted(len(alone), 'case')} with a mask in one of the two alone: {few(alone, 5)}")
    return Shared(both, (len(one & known) - len(both), len(other & known) - len(both)))


def held_out_masks(a: str | Path, b: str | Path) -> dict[str, tuple[Path, Path]]:
    """The masks of cases that two runs both held out; none where one of them is no run."""
    if not (is_run(Path(a)) and is_run(Path(b))):
        return {}
    one, other = _predictions(a), _predictions(b)
    return {name: (mask, other[name]) for name, mask in one.items() if name in other}


def _references(known: Mapping[str, Case], folder: Path) -> dict[str, Mask]:
    masks: dict[str, Mask] = {
        name: case if case.structures else case.label for name, case in known.items() if case.label
    }
    return masks or {**_masks(folder)}


def is_run(folder: Path) -> bool:
    """Whether a folder is a run that has masks of held-out cases."""
    return (folder / "predictions").is_dir() and (folder / "splits.json").is_file()


def _predictions(folder: str | Path) -> dict[str, Path]:
    """The masks of held-out cases, where the folder is a run; else those in the folder itself."""
    folder = Path(folder)
    return _masks(folder / "predictions" if is_run(folder) else folder)


def _pair(name: str, prediction: Path, reference: Mask, case: Case | None, told: Mapping[str, str]) -> Pair:
    if case is None:
        return Pair(name, prediction, reference, told.get("group", ""), about=told)
    return Pair(name, prediction, reference, told.get("group") or case.group, case.images, {**case.about, **told})


def _dataset(folder: Path, modality: str | None) -> tuple[dict[str, Case], Labels | None]:
    """The labelled cases of a whole dataset, by the ids that its predictions have, and what it declares its values to mean.

    Neither where a folder holds masks alone.
    """
    try:
        dataset = layouts.find(folder, modality)
    except DataError:
        return {}, None
    return {case.id: case for case in dataset.labelled}, dataset.labels


def labels_in(pairs: Iterable[Pair | tuple[Any, ...]]) -> Labels:
    """Labels for masks whose meaning nobody declared: each value that any prediction or reference holds is one.

    Where DICOM objects are judged by a tree of studies, both know them by name.

    Raises:
        DataError: a value is negative, or predictions know values and the references names.
    """
    given = [Pair(*each) for each in pairs]
    if named := next(filter(None, (by_name(pair.reference) for pair in given)), None):
        if not all(_is_object(pair.prediction) for pair in given):
            raise DataError(_UNKNOWN)
        return named
    found = {
        pair.case: tuple(frozenset(map(int, np.unique(mask.array))) for mask in read_masks(pair[1:3])) for pair in given
    }
    refuse_negative(found)
    return Labels.of(sorted({value for masks in found.values() for mask in masks for value in mask} - {0}))


def by_name(mask: Mask) -> Labels | None:
    """The labels of a mask that knows them by name."""
    return mask.structures.labels if isinstance(mask, Case) and mask.structures else None


def _masks(folder: Path) -> dict[str, Path]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    # macOS leaves a ._case.nii.gz beside each file that it copies.
    paths = [folder / name for name in names if name.lower().endswith(io.SUFFIXES) and not name.startswith(".")]
    paths = without_probabilities(paths)
    masks = {io.stem(path): path for path in paths}
    if len(masks) < len(paths):
        raise DataError(f"'{folder}' holds files that differ only in their ending. Keep one mask per case.")
    if not masks:
        absent = "" if folder.exists() else ": it is not there"
        raise DataError(
            f"'{folder}' is no folder of masks{absent}. Give two, or two files; endings: {', '.join(io.SUFFIXES)}"
        )
    return masks
