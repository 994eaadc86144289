"""Many scans through one loaded model: masks, their volumes and label tables; a bad scan never stops the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medseg import files, io, objects, progress, system, tables
from medseg.errors import DataError, MedsegError
from medseg.homing import Blank
from medseg.plural import counted
from medseg.prediction import Prediction, Ready
from medseg.predictor import Predictor
from medseg.scans import PROBABILITIES, VARIANCES, Scan

_PLAIN = objects.Manner()


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its mask, volumes and why to look at them (`Prediction.warnings`), or why there is none."""

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
    manner: objects.Manner = _PLAIN,
) -> list[Outcome]:
    """Segment scans one after the other; while one is segmented, the next is read, and the last one written.

    Args:
        predictor: the loaded model.
        scans: what to segment.
        out: a folder, or for a single scan the mask's file.
        suffix: format of masks in a folder: an ending out of `io.WRITTEN`, or of `objects.FORMATS` for DICOM series.
        probabilities: write them beside each mask, as `ID_probabilities.nii.gz`, and those of a model that is sampled with their
            variances, `ID_variances.nii.gz`.
        stream: write masks and probabilities to disk as they come, instead of holding them in memory.
        manner: how DICOM objects are written.

    Returns:
        One outcome a scan, in order. Masks, `volumes.csv` and label tables for 3D Slicer and ITK-SNAP lie in the folder;
        beside a single file they carry its name. `volumes.csv` keeps the rows of scans that were predicted into the folder
        before.

    Raises:
        DataError: `out` or `suffix` cannot be used for these scans, or nothing can be written there.
    """
    out = Path(out)
    single = out.name.lower().endswith(io.SUFFIXES)
    beside = (PROBABILITIES, VARIANCES)[: 1 + bool(predictor.ensemble.sampler)] if probabilities else ()
    targets = _targets(scans, out, suffix, single, beside)
    _check_manner(scans, targets[0], manner)
    folder, prefix = (out.parent, f"{io.stem(out)}_") if single else (out, "")
    files.check_writable(folder)
    volumes = tables.Volumes(folder / f"{prefix}volumes.csv", predictor.labels, merge=not single)
    blank = partial(files.scratch, folder) if stream else np.zeros
    predictor.settle()
    keep, began = _Keeper(volumes, manner, among_others=len(scans) > 1), time.monotonic()
    with _beside() as reader, _beside() as writer:
        outcomes: list[Future[Outcome]] = []
        work = zip(scans, targets, _ahead(reader, predictor, scans), strict=True)
        for scan, target, ready in progress.track(work, "predicting", len(scans)):
            found = _tried(predictor, ready, probabilities, blank)
            wait(outcomes)  # one scan is read, one segmented and one written at a time, and no more are in memory
            outcomes.append(writer.submit(keep, scan, target, found))
            del found
    keep.sum_up(time.monotonic() - began)
    if keep.any:
        tables.write_labels(folder, prefix, predictor.labels)
    return [outcome.result() for outcome in outcomes]


def _beside() -> ThreadPoolExecutor:
    """A thread for what runs beside the network, and lets it go first."""
    return ThreadPoolExecutor(1, initializer=system.give_way)


def _ahead(reader: ThreadPoolExecutor, predictor: Predictor, scans: Sequence[Scan]) -> Iterator[Future[Ready]]:
    """Each scan as the network will see it, read and prepared while the one before is segmented."""
    coming: Future[Ready] | None = None
    for scan in scans:
        ready, coming = coming, reader.submit(predictor.prepare, list(scan.images))
        if ready:
            yield ready
    if coming:
        yield coming


def _tried(predictor: Predictor, ready: Future[Ready], probabilities: bool, blank: Blank) -> Prediction | str:
    """What was found, or why nothing was: in words, for an error holds on to the memory of all that it went through."""
    try:
        return predictor.segment(ready.result(), probabilities=probabilities, blank=blank)
    except Exception as error:  # whatever is odd about one scan, a night's work on the others goes on
        return _reason(error)


class _Keeper:
    """Writes what was found, and the table of volumes up to there, should this end early."""

    def __init__(self, volumes: tables.Volumes, manner: objects.Manner, *, among_others: bool) -> None:
        self.volumes, self.manner, self.among_others, self.any = volumes, manner, among_others, False
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
                notes = _write(found, target, scan, self.manner)
                return Outcome(scan.id, target, found.volumes_ml, (*found.warnings, *notes))
            except Exception as error:
                found = _reason(error)
        words = {image: f"'{scan.id}{io.ending(image)}'" for image in scan.images} | {target: f"'{target.name}'"}
        return Outcome(scan.id, error=files.without_paths(found, words).removeprefix(f"'{scan.id}': "))


def mask_path(folder: Path, name: str, suffix: str = ".nii.gz") -> Path:
    """Where the mask of a scan lies in a folder of masks."""
    return folder / f"{name}{suffix}"


def _targets(scans: Sequence[Scan], out: Path, suffix: str, single: bool, beside: Sequence[str]) -> list[Path]:
    """The file of each mask; refuses what cannot be written, and to write over what is read."""
    if single and len(scans) != 1:
        raise DataError(f"-o names one file, but there are {len(scans)} scans. Name a folder.")
    if not single and len(scans) == 1 and out.suffix and not out.is_dir():
        raise DataError(
            f"'{out.name}' ends in no format that masks are written in ({', '.join(io.WRITTEN)}). A folder has no ending."
        )
    if not single and out.is_file():
        raise DataError(f"'{out.name}' is a file. Name a folder with -o.")
    suffix = io.ending(out) if single else suffix
    if suffix not in (*io.WRITTEN, *objects.FORMATS.values()):
        known = [*(s[1:] for s in io.WRITTEN), *objects.FORMATS]
        raise DataError(f"masks cannot be written as '{suffix.lstrip('.')}'. Known: {', '.join(known)}.")
    targets = [out if single else mask_path(out, scan.id, suffix) for scan in scans]
    written = targets + [_beside_it(target, name) for target in targets for name in beside]
    read = {image.resolve() for scan in scans for image in scan.images}
    if lost := [target for target in written if target.resolve() in read]:
        raise DataError(f"a mask would replace the scan '{lost[0].name}'. Name another file or folder with -o.")
    if twice := [target for target, count in Counter(written).items() if count > 1]:
        raise DataError(f"two results would have the name '{twice[0].name}'. Rename a scan, or leave it out.")
    return targets


def _check_manner(scans: Sequence[Scan], target: Path, manner: objects.Manner) -> None:
    """See, before anything is computed, that DICOM objects can be made of all scans, or that nobody asked for any."""
    if target.name.lower().endswith(tuple(objects.FORMATS.values())):
        manner.check([scan.images[0] for scan in scans])
    elif manner != _PLAIN:
        raise DataError(
            f"only DICOM objects hold what to change about the patient; add --format {' or --format '.join(objects.FORMATS)}."
        )


def _beside_it(target: Path, name: str) -> Path:
    """A file of maps beside a mask's."""
    return target.with_name(f"{io.stem(target)}{name}.nii.gz")


def _reason(error: BaseException) -> str:
    if isinstance(error, MedsegError):
        return str(error)
    if system.is_out_of_memory(error):
        return "not enough memory. Close other programs, or use a smaller scan."
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _write(prediction: Prediction, target: Path, scan: Scan, manner: objects.Manner) -> tuple[str, ...]:
    """All files of a scan, or none; what was odd about its headers."""
    notes: tuple[str, ...] = ()
    if target.name.lower().endswith(tuple(objects.FORMATS.values())):
        notes = objects.write_structures(prediction.mask, prediction.labels, scan.images[0], target, **manner._asdict())
    else:
        io.write(prediction.mask, target, parents=True)
    written = [target]
    try:
        for name, maps in ((PROBABILITIES, prediction.probabilities), (VARIANCES, prediction.variances)):
            if maps:
                io.write(maps, _beside_it(target, name))
                written.append(_beside_it(target, name))
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return notes
