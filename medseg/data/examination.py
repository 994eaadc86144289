"""The check of one case: every voxel of its images and its mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from medseg import preprocess
from medseg.arrays import Array
from medseg.data.cases import Case
from medseg.data.findings import Finding, Severity
from medseg.data.reading import mask_values, misplaced, read_mask
from medseg.extent import profiles
from medseg.geometry import difference, same_space
from medseg.io import read
from medseg.labels import Labels
from medseg.labels.declaration import shown
from medseg.volume import Geometry, Volume
from medseg.wording import counted, few

_DRIFT_MM = 0.01


@dataclass
class Exam:
    """What is kept of a case when its voxels are freed.

    Args:
        case: the case.
        findings: about it alone.
        channels: number of channels of its images, 0 while unknown.
        geometry: of its first image, if it could be read.
        digest: equal for equal voxels; empty while unknown.
        values: of its mask, besides 0.
        masked: whether it has a mask that can be used.
        swapped: for each left/right pair that its mask holds, whether the left lies on the right.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    channels: int = 0
    geometry: Geometry | None = None
    digest: str = ""
    values: frozenset[int] = frozenset()
    masked: bool = False
    swapped: Mapping[tuple[str, str], bool] = field(default_factory=dict)

    def add(self, severity: Severity, code: str, message: str) -> None:
        """Note something about the case."""
        self.findings.append(Finding(severity, self.case.id, code, message))


def examine(case: Case, labels: Labels | None) -> Exam:
    """Check a case; any error while reading its files is a finding."""
    exam = Exam(case)
    try:
        _look_at_images(exam)
        _look_at_mask(exam, labels)
    except Exception as error:
        exam.add("error", "unusable", case.reason(error))
    return exam


def _look_at_images(exam: Exam) -> None:
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
            preprocess.check_cover(exam.geometry, volume.geometry, number)
            how = difference(exam.geometry, volume.geometry)
            exam.add("note", "channels", f"channel {number} is resampled to the grid of the first: {how}")


def _add_notes(exam: Exam, volume: Volume, what: str) -> None:
    for note in volume.meta.get("notes", ()):
        exam.add("note", "file", f"{what}: {note}")


def _look_at_intensities(exam: Exam, channel: Array) -> None:
    if bad := channel.size - int(np.isfinite(channel).sum()):
        exam.add("error", "not-finite", f"{bad} of {channel.size} voxels of the image are NaN or infinite")
    elif channel.min() == channel.max():
        exam.add("warning", "constant", f"every voxel of a channel is {channel.flat[0]:g}")


def _look_at_mask(exam: Exam, labels: Labels | None) -> None:
    if exam.case.label is None or exam.geometry is None:
        exam.add("note", "unlabelled", "no mask: not used for training")
        return
    mask = read_mask(exam.case, exam.geometry)
    _add_notes(exam, mask, "mask")
    if mask.meta["stored_dtype"].startswith("float"):
        exam.add("note", "float-mask", "the mask is stored as floating point numbers; all are whole, so it can be used")
    if wrong := misplaced(exam.geometry, mask.geometry):
        exam.add("error", "geometry", wrong)
    elif not same_space(exam.geometry, mask.geometry, _DRIFT_MM):
        how = difference(exam.geometry, mask.geometry)
        exam.add("warning", "drift", f"label is {how}: less than a twentieth of a voxel, taken as the same place")
    allowed = (1,) if labels is None else labels.allowed_channels
    if mask.channels not in allowed:
        picture = "; is it a colour picture?" if mask.channels in (3, 4) else ""
        expected = " or ".join(map(str, allowed))
        exam.add(
            "error", "mask-channels", f"the mask has {counted(mask.channels, 'channel')}, expected {expected}{picture}"
        )
        return
    exam.values = frozenset[int]().union(*mask_values(mask))
    exam.masked = True
    _look_at_values(exam, mask.array, labels)
    exam.swapped = dict(_swapped(mask, labels)) if labels else {}


def _look_at_values(exam: Exam, array: Array, labels: Labels | None) -> None:
    picture = "; 0 and 255 are how pictures write a mask" if exam.values == {255} else ""
    if not exam.values:
        exam.add("warning", "empty", "the mask is empty")
    elif labels is not None and len(array) == 1 and (unknown := labels.undeclared(array)):
        count = np.isin(array, unknown).sum()
        text = f"{counted(count, 'voxel holds a value', 'voxels hold values')} that no label declares: {few(map(shown, unknown), 8)}{picture}"
        exam.add("error", "undeclared", text)
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
    return np.array([(n * np.arange(n.size)).sum() / n.sum() for n in profiles(mask, np.sum)])
