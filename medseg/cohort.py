"""Many scans through one loaded model: masks, their volumes and label tables; a bad scan never stops the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medseg import files, io, memory, progress, system
from medseg.data import label_tables, mask_files
from medseg.data.dicom_objects import FORMATS, DicomOptions, write_structures
from medseg.data.scans import PROBABILITIES, VARIANCES, Scan
from medseg.errors import DataError, MedsegError
from medseg.inference.outputs import Blank
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.predictor import Predictor
from medseg.wording import counted

_AS_IS = DicomOptions()


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its mask, volumes and warnings (see `Prediction`), or the error that left it without a mask."""

    id: str
    mask: Path | None = None
    volumes_ml: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""


def predict(
    predictor: Predictor,
    scans: Sequence[Scan],
    out: str | Path,
    *,
    suffix: str = ".nii.gz",
    probabilities: bool = False,
    stream: bool = False,
    dicom: DicomOptions = _AS_IS,
) -> list[Outcome]:
    """Segment scans one after the other; while one is segmented, the next is read and the previous one written.

    Args:
        predictor: the loaded model.
        scans: what to segment.
        out: a folder, or for a single scan the mask's file.
        suffix: format of masks in a folder: an ending from `io.WRITTEN`, or from `dicom_objects.FORMATS` for DICOM series.
        probabilities: write them beside each mask, as `ID_probabilities.nii.gz`; of a model that is sampled their variances too,
            as `ID_variances.nii.gz`.
        stream: write masks and probabilities to disk as they come, instead of holding them in memory.
        dicom: how DICOM objects are written.

    Returns:
        One outcome for each scan, in order. The folder then holds masks, `volumes.csv` and label tables for 3D Slicer and
        ITK-SNAP; beside a single file they carry its name. `volumes.csv` keeps the rows of scans that were predicted into the
        folder before.

    Raises:
        DataError: `out` or `suffix` cannot be used for these scans, or nothing can be written there.
    """
    out = Path(out)
    single = out.name.lower().endswith(io.SUFFIXES)
    beside = [PROBABILITIES] if probabilities else []
    if probabilities and predictor.ensemble.sampler:
        beside.append(VARIANCES)
    targets = mask_files.targets(scans, out, suffix, single, beside)
    _check_options(scans, targets[0], dicom)
    folder, prefix = (out.parent, f"{io.stem(out)}_") if single else (out, "")
    files.check_writable(folder)
    volumes = label_tables.VolumeTable(folder / f"{prefix}volumes.csv", predictor.labels, merge=not single)
    blank = partial(files.scratch, folder) if stream else np.zeros
    predictor.settle()
    results, began = _Writer(volumes, dicom, among_others=len(scans) > 1), time.monotonic()
    with _background_thread() as reader, _background_thread() as writer:
        outcomes: list[Future[Outcome]] = []
        work = zip(scans, targets, _ahead(reader, predictor, scans), strict=True)
        for scan, target, ready in progress.track(work, "predicting", len(scans)):
            found = _tried(predictor, ready, probabilities, blank)
            wait(outcomes)  # one scan is read, one segmented and one written at a time, and no more are in memory
            outcomes.append(writer.submit(results, scan, target, found))
            del found
    results.sum_up(time.monotonic() - began)
    if results.any:
        label_tables.write_labels(folder, prefix, predictor.labels)
    return [outcome.result() for outcome in outcomes]


def _background_thread() -> ThreadPoolExecutor:
    """A thread for reading or writing while the network computes, with lower priority."""
    return ThreadPoolExecutor(1, initializer=system.give_way)


def _ahead(reader: ThreadPoolExecutor, predictor: Predictor, scans: Sequence[Scan]) -> Iterator[Future[PreparedScan]]:
    """Each scan as the network will see it, read and prepared while the one before is segmented."""
    coming: Future[PreparedScan] | None = None
    for scan in scans:
        ready, coming = coming, reader.submit(predictor.prepare, list(scan.images))
        if ready:
            yield ready
    if coming:
        yield coming


def _tried(predictor: Predictor, ready: Future[PreparedScan], probabilities: bool, blank: Blank) -> Prediction | str:
    """What was found, or why nothing was: in words, for an error holds on to the memory of all that it went through."""
    try:
        return predictor.segment(ready.result(), probabilities=probabilities, blank=blank)
    except Exception as error:  # whatever is odd about one scan, a night's work on the others goes on
        return _reason(error)


class _Writer:
    """Writes what was found, and the table of volumes up to there, should this end early."""

    def __init__(self, volumes: label_tables.VolumeTable, dicom: DicomOptions, *, among_others: bool) -> None:
        self.volumes, self.dicom, self.among_others, self.any = volumes, dicom, among_others, False
        self.work: list[tuple[float, float]] = []

    def __call__(self, scan: Scan, target: Path, found: Prediction | str) -> Outcome:
        outcome = self._written(scan, target, found)
        if isinstance(found, Prediction):
            self.work.append((found.passes, found.air_share))
        for warning in outcome.warnings:
            progress.warn(f"{scan.id}: {warning}")
        if outcome.error and self.among_others:
            progress.warn(f"{scan.id}: {outcome.error}")
        self.any = self.any or outcome.mask is not None
        self.volumes.add(outcome.id, outcome.volumes_ml, outcome.warnings, outcome.error)
        if self.any:
            self.volumes.write()
        return outcome

    def sum_up(self, seconds: float) -> None:
        """Say what it took."""
        if self.work:
            passes, air = np.median([passes for passes, _ in self.work]), np.mean([air for _, air in self.work])
            left_out = f", {air:.0%} of the windows were left out as air" if air else ""
            scans = counted(len(self.work), "scan")
            progress.say(f"{scans} in {seconds:.1f} s: a voxel was computed {passes:.1f} times{left_out}")

    def _written(self, scan: Scan, target: Path, found: Prediction | str) -> Outcome:
        if isinstance(found, Prediction):
            try:
                notes = _write(found, target, scan, self.dicom)
                return Outcome(scan.id, target, found.volumes_ml, (*found.warnings, *notes))
            except Exception as error:
                found = _reason(error)
        words = {image: f"'{scan.id}{io.ending(image)}'" for image in scan.images} | {target: f"'{target.name}'"}
        return Outcome(scan.id, error=files.without_paths(found, words).removeprefix(f"'{scan.id}': "))


def _check_options(scans: Sequence[Scan], target: Path, dicom: DicomOptions) -> None:
    """Check, before anything is computed, that DICOM objects can be made of all scans, or that nobody asked for any."""
    if target.name.lower().endswith(tuple(FORMATS.values())):
        dicom.check([scan.images[0] for scan in scans])
    elif dicom != _AS_IS:
        raise DataError(f"these options are for masks in DICOM alone; add --format {' or --format '.join(FORMATS)}.")


def _reason(error: BaseException) -> str:
    if isinstance(error, MedsegError):
        return str(error)
    if memory.is_out_of_memory(error):
        return "not enough memory. Close other programs, or use a smaller scan."
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _write(prediction: Prediction, target: Path, scan: Scan, dicom: DicomOptions) -> tuple[str, ...]:
    """All files of a scan, or none; what was odd about its headers."""
    notes: tuple[str, ...] = ()
    if target.name.lower().endswith(tuple(FORMATS.values())):
        notes = write_structures(prediction.mask, prediction.labels, scan.images[0], target, **dicom._asdict())
    else:
        io.write(prediction.mask, target, parents=True)
    written = [target]
    try:
        for name, maps in ((PROBABILITIES, prediction.probabilities), (VARIANCES, prediction.variances)):
            if maps:
                io.write(maps, mask_files.maps_path(target, name))
                written.append(mask_files.maps_path(target, name))
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return notes
