"""What is wrong with a dataset, before it costs a night of training: each case alone, then the cases side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import preprocess, progress
from medseg.cases import Case, Dataset, Fold, few
from medseg.errors import MedsegError
from medseg.findings import Finding, Report, Severity
from medseg.geometry import difference, same_space
from medseg.io import read
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
_DRIFT_MM = 0.01
_THREADS = 3  # each holds one case in memory
_INSTANCES = 40  # more values than this, declared by nobody, look like numbered instances


@dataclass
class _Exam:
    """What is kept of a case when its voxels are let go."""

    case: Case
    findings: list[Finding] = field(default_factory=list)
    channels: int = 0
    geometry: Geometry | None = None
    digest: str = ""
    values: frozenset[int] = frozenset()
    swapped: Mapping[tuple[str, str], bool] = field(default_factory=dict)

    def add(self, severity: Severity, code: str, message: str) -> None:
        self.findings.append(Finding(severity, self.case.id, code, message))


def check(dataset: Dataset, splits: Sequence[Fold] | None = None) -> Report:
    """Look at every voxel of a dataset for what would stop or mislead a training.

    Args:
        dataset: see `layouts.find`. Where it declares no labels, any whole numbers are taken for labels.
        splits: folds in which to look for patients on both sides, besides the split that the dataset declares.

    Returns:
        The report. A case that cannot be read is a finding and never an exception.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda case: _examine(case, dataset.labels), dataset.cases)
        exams = list(progress.track(found, "checking", len(dataset.cases)))
    findings = [finding for exam in exams for finding in exam.findings]
    for compare in (_channels, _spacings, _duplicates, _sides, _labels):
        findings += compare(dataset, exams)
    declared = {case.id: case.split or "train" for case in dataset.cases}
    findings += _leaks(exams, "the declared split", declared)
    for number, fold in enumerate(splits or ()):
        sides = dict.fromkeys(fold.train, "train") | dict.fromkeys(fold.test, "test")
        findings += _leaks(exams, f"fold {number}", sides)
    return Report.of(dataset, findings)


def _examine(case: Case, labels: Labels | None) -> _Exam:
    exam = _Exam(case)
    try:
        _look_at_images(exam)
        _look_at_mask(exam, labels)
    except MedsegError as error:
        exam.add("error", "unusable", str(error))
    except Exception as error:  # whatever a file does to a reader, the other cases are still looked at
        exam.add("error", "unusable", f"{type(error).__name__} while reading: {error}")
    return exam


def _look_at_images(exam: _Exam) -> None:
    volumes = [read(path) for path in exam.case.images]
    exam.geometry = volumes[0].geometry
    exam.channels = sum(volume.channels for volume in volumes)
    digest = hashlib.blake2b(digest_size=16)
    for volume in volumes:
        _add_notes(exam, volume, "image")
        for channel in volume.array:
            _look_at_intensities(exam, channel)
            digest.update(f"{channel.shape}{channel.dtype}".encode())
            digest.update(np.ascontiguousarray(channel).data)
    exam.digest = digest.hexdigest()
    for number, volume in enumerate(volumes[1:], 2):
        if not same_space(exam.geometry, volume.geometry):
            preprocess.combine([volumes[0], volume])  # refuses what training would refuse
            how = difference(exam.geometry, volume.geometry)
            exam.add("note", "channels", f"channel {number} is resampled to the grid of the first: {how}")


def _add_notes(exam: _Exam, volume: Volume, what: str) -> None:
    for note in volume.meta.get("notes", ()):
        exam.add("note", "file", f"{what}: {note}")


def _look_at_intensities(exam: _Exam, channel: Array) -> None:
    if bad := channel.size - int(np.isfinite(channel).sum()):
        exam.add("error", "not-finite", f"{bad} of {channel.size} voxels of the image are NaN or infinite")
    elif channel.min() == channel.max():
        exam.add("warning", "constant", f"every voxel of a channel is {channel.flat[0]:g}")


def _look_at_mask(exam: _Exam, labels: Labels | None) -> None:
    if exam.case.label is None or exam.geometry is None:
        exam.add("note", "unlabelled", "no mask: not used for training")
        return
    mask = read(exam.case.label, "labels")
    _add_notes(exam, mask, "mask")
    if read(exam.case.label).array.dtype.kind == "f":
        exam.add("note", "float-mask", "the mask is stored as floating point numbers; all are whole, so it can be used")
    if not same_space(exam.geometry, mask.geometry):
        verb = "is" if exam.geometry.shape == mask.geometry.shape else "has"
        exam.add("error", "geometry", f"label {verb} {difference(exam.geometry, mask.geometry)}")
    elif not same_space(exam.geometry, mask.geometry, _DRIFT_MM):
        how = difference(exam.geometry, mask.geometry)
        exam.add("warning", "drift", f"label is {how}: less than a twentieth of a voxel, taken as the same place")
    allowed = (1,) if labels is None or labels.exclusive else (1, len(labels))
    if mask.channels not in allowed:
        picture = "; is it a colour picture?" if mask.channels in (3, 4) else ""
        expected = " or ".join(map(str, allowed))
        exam.add("error", "mask-channels", f"the mask has {mask.channels} channels, expected {expected}{picture}")
        return
    exam.values = frozenset(int(v) for v in np.unique(mask.array)) - {0}
    _look_at_values(exam, mask.array, labels)
    exam.swapped = dict(_swapped(mask, labels)) if labels else {}


def _look_at_values(exam: _Exam, array: Array, labels: Labels | None) -> None:
    picture = "; 0 and 255 are how pictures write a mask" if exam.values == {255} else ""
    if not exam.values:
        exam.add("warning", "empty", "the mask is empty")
    elif labels is not None and len(array) == 1 and (unknown := labels.undeclared(array)):
        count = np.isin(array, unknown).sum()
        exam.add(
            "error", "undeclared", f"{count} voxels hold values that no label declares: {few(unknown, 8)}{picture}"
        )
    elif labels is None and picture:
        exam.add("warning", "picture-mask", f"the mask holds one value, 255, taken as a label{picture}")


def _swapped(mask: Volume, labels: Labels) -> Iterator[tuple[tuple[str, str], bool]]:
    """For each left/right pair that a mask holds, whether the left lies on the right (+x) of the right."""
    for left, right in ((labels.items[a], labels.items[b]) for a, b in labels.sides()):
        masks = [labels.mask(mask.array, item) for item in (left, right)]
        if all(m.any() for m in masks):
            x = [mask.geometry.to_world(_centroid(m))[0] for m in masks]
            yield (left.name, right.name), bool(x[0] > x[1])


def _centroid(mask: Array) -> Array:
    marginals = [mask.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return np.array([(m * np.arange(m.size)).sum() / m.sum() for m in marginals])


def _channels(dataset: Dataset, exams: Sequence[_Exam]) -> Iterator[Finding]:
    for exam in exams:
        if exam.digest and exam.channels != len(dataset.channels):
            text = (
                f"{exam.channels} channel(s), but the dataset has {len(dataset.channels)}: {few(dataset.channels, 8)}"
            )
            yield Finding("error", exam.case.id, "channels", text)


def _spacings(dataset: Dataset, exams: Sequence[_Exam]) -> Iterator[Finding]:
    """Voxels more than twice, or less than half, as long as most: often a wrong header. Axes are taken by direction."""
    spacings = {exam.case.id: _spacing_ras(exam.geometry) for exam in exams if exam.geometry is not None}
    median = np.median(list(spacings.values()) or [np.ones(3)], axis=0)
    for name, spacing in spacings.items():
        if np.abs(np.log2(spacing / median)).max() > 1:
            here, most = (" x ".join(f"{s:.3g}" for s in v) for v in (spacing, median))
            yield Finding("warning", name, "spacing", f"spacing is {here} mm (along R, A, S); the median is {most} mm")


def _spacing_ras(geometry: Geometry) -> Array:
    axes = [next(n for n, code in enumerate(geometry.axcodes) if code in pair) for pair in ("RL", "AP", "SI")]
    return np.array(geometry.spacing_mm)[axes]


def _duplicates(dataset: Dataset, exams: Sequence[_Exam]) -> Iterator[Finding]:
    for exam, twin in _twins(exams, lambda exam: exam.digest):
        yield Finding("warning", exam.case.id, "duplicate", f"the image's voxels are those of {twin.case.id}")


def _twins(exams: Sequence[_Exam], key: Callable[[_Exam], str]) -> Iterator[tuple[_Exam, _Exam]]:
    """Each case with an earlier one of the same key."""
    first: dict[str, _Exam] = {}
    for exam in exams:
        if key(exam) and (twin := first.setdefault(key(exam), exam)) is not exam:
            yield exam, twin


def _leaks(exams: Sequence[_Exam], split: str, sides: Mapping[str, str]) -> Iterator[Finding]:
    """Patients, and images of equal voxels, on both sides of a split."""
    inside = [exam for exam in exams if exam.case.id in sides]
    same: dict[str, Callable[[_Exam], str]] = {"patient": lambda e: e.case.group, "image": lambda e: e.digest}
    for what, key in same.items():
        for exam, twin in _twins(inside, key):
            here, there = sides[exam.case.id], sides[twin.case.id]
            if here != there:
                text = f"same {what} as {twin.case.id}, but one is in {here}, the other in {there} ({split})"
                yield Finding("error", exam.case.id, "leak", text)


def _sides(dataset: Dataset, exams: Sequence[_Exam]) -> Iterator[Finding]:
    names = dataset.labels.names if dataset.labels else ()
    for left, right in ((names[a], names[b]) for a, b in (dataset.labels.sides() if dataset.labels else ())):
        swapped = [exam for exam in exams if exam.swapped.get((left, right))]
        both = sum((left, right) in exam.swapped for exam in exams)
        text = f"left is {left}, right is {right}: they lie so in {both - len(swapped)} of {both} cases that have both"
        yield Finding("note", "", "sides", text)
        for exam in swapped:
            text = f"{left} lies to the right of {right}: labels swapped, or the image mirrored?"
            yield Finding("warning", exam.case.id, "sides", text)


def _labels(dataset: Dataset, exams: Sequence[_Exam]) -> Iterator[Finding]:
    values = frozenset[int]().union(*(exam.values for exam in exams))
    if not values:
        yield Finding("error", "", "empty", "no mask that could be read holds a label")
    elif dataset.labels is None:
        many = len(values) > _INSTANCES
        text = f"no labels are declared; the masks hold {few(sorted(values), 8)}"
        doubt = "; are these numbered instances? Each would become a label"
        yield Finding("warning" if many else "note", "", "labels", text + (doubt if many else ""))
    elif dataset.labels.exclusive:
        for item in (item for item in dataset.labels if not values & set(item.values)):
            yield Finding("warning", "", "labels", f"'{item.name}' ({few(item.values)}) is in no mask")
    if (patients := len({case.group for case in dataset.labelled})) < 2:
        yield Finding("error", "", "too-few", f"{patients} labelled patient(s); training needs at least 2, better 20")
