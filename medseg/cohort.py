"""Many scans through one loaded model: masks, their volumes and label tables; a bad scan never stops the others."""

from __future__ import annotations

import csv
import io as text_io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg import files, io, progress
from medseg.errors import DataError, MedsegError
from medseg.labels import Labels
from medseg.predictor import Prediction, Predictor

_CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True)
class Scan:
    """One scan to segment: a name for its mask, and one file (or DICOM folder) a channel or one for all."""

    id: str
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its mask and volumes, or the reason why there is none."""

    id: str
    mask: Path | None = None
    volumes_ml: dict[str, float] | None = None
    error: str = ""


def find(inputs: Iterable[str | Path]) -> list[Scan]:
    """The scans of files, folders of scans, DICOM folders, or `a.nii.gz,b.nii.gz` for the channels of one scan.

    In a folder, names that differ in `_0000`, `_0001` ... are channels of one scan.

    Raises:
        DataError: nothing there, or two scans would have one name.
    """
    scans = [scan for item in inputs for scan in _of(str(item))]
    names = [scan.id for scan in scans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two scans share the name '{twice[0]}', so that one mask would replace the other. Rename one.")
    return scans


def _of(item: str) -> list[Scan]:
    parts = [Path(part) for part in item.split(",")] if "," in item and not Path(item).exists() else [Path(item)]
    if missing := [part for part in parts if not part.exists()]:
        raise DataError(f"no such scan: '{missing[0]}'")
    if len(parts) > 1 or parts[0].is_file():
        return [Scan(_CHANNEL.sub("", io.stem(parts[0])), tuple(parts))]
    folder = parts[0]
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().endswith(io.SUFFIXES):
            found.setdefault(_CHANNEL.sub("", io.stem(path)), []).append(path)
    if found:
        return [Scan(name, tuple(paths)) for name, paths in found.items()]
    series = [
        path
        for path in [folder, *sorted(folder.iterdir())]
        if path.is_dir() and any(p.is_file() for p in path.iterdir())
    ]
    if not series:
        raise DataError(
            f"'{folder}' holds no scans. Known files: {', '.join(io.SUFFIXES)}, or DICOM series in folders."
        )
    return [Scan(io.stem(path), (path,)) for path in series]


def predict(
    predictor: Predictor,
    scans: Sequence[Scan],
    out: str | Path,
    *,
    suffix: str = ".nii.gz",
    probabilities: bool = False,
) -> list[Outcome]:
    """Segment scans one after the other.

    Args:
        predictor: the loaded model.
        scans: what to segment.
        out: a folder, or for a single scan the mask's file.
        suffix: format of masks in a folder.
        probabilities: write them beside each mask, as `ID_probabilities.nii.gz`.

    Returns:
        One outcome a scan, in order. Masks, `volumes.csv` and label tables for 3D Slicer and ITK-SNAP lie in the folder;
        beside a single file they carry its name.
    """
    out = Path(out)
    single = out.name.lower().endswith(io.SUFFIXES)
    if single and len(scans) != 1:
        raise DataError(f"-o names one file, but there are {len(scans)} scans. Name a folder.")
    folder, prefix = (out.parent, f"{io.stem(out)}_") if single else (out, "")
    outcomes = []
    for scan in progress.track(scans, "predicting"):
        target = out if single else out / f"{scan.id}{suffix}"
        try:
            prediction = predictor(list(scan.images), probabilities=probabilities)
            _write(prediction, target)
            outcomes.append(Outcome(scan.id, target, prediction.volumes_ml))
        except MedsegError as error:
            outcomes.append(Outcome(scan.id, error=str(error)))
            progress.warn(f"{scan.id}: {error}")
    if any(outcome.mask for outcome in outcomes):
        write_tables(folder, prefix, predictor.labels, outcomes)
    return outcomes


def _write(prediction: Prediction, target: Path) -> None:
    io.write(prediction.mask, target)
    if prediction.probabilities:
        io.write(prediction.probabilities, target.with_name(f"{io.stem(target)}_probabilities.nii.gz"))


def write_tables(folder: Path, prefix: str, labels: Labels, outcomes: Sequence[Outcome]) -> None:
    """`volumes.csv` and the colours and names of labels, as 3D Slicer and ITK-SNAP read them."""
    text = text_io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *(f"{name}_ml" for name in labels.names), "error"])
    for outcome in outcomes:
        volumes = outcome.volumes_ml or {}
        writer.writerow(
            [outcome.id, *(f"{volumes[n]:.4f}" if n in volumes else "" for n in labels.names), outcome.error]
        )
    files.write_text(folder / f"{prefix}volumes.csv", text.getvalue())
    rows = [(item.values[0], item.name, *item.colour) for item in labels]
    slicer = "".join(
        f"{value} {re.sub(r'[^0-9A-Za-z.-]+', '_', name)} {r} {g} {b} 255\n" for value, name, r, g, b in rows
    )
    files.write_text(folder / f"{prefix}slicer.ctbl", f"0 background 0 0 0 0\n{slicer}")
    snap = "".join(f'{value:5d} {r:5d} {g:4d} {b:4d} 1 1 1 "{name}"\n' for value, name, r, g, b in rows)
    files.write_text(folder / f"{prefix}itksnap.txt", f'    0     0    0    0 0 0 0 "Clear Label"\n{snap}')
