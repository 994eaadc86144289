"""What is wrong with a dataset, before it costs a night of training: each case alone, then the cases side by side."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from medseg.data import reading
from medseg.data.cases import Dataset, MaskValues
from medseg.data.examination import Exam, examine
from medseg.data.findings import Finding, Report, incomplete
from medseg.errors import DataError
from medseg.labels.declaration import shown
from medseg.wording import counted, few

_ENOUGH = 4  # masks, of which a value in one alone is odd
_INSTANCES = 40  # more values than this, declared by nobody, look like numbered instances


def check(dataset: Dataset) -> Report:
    """Look at every voxel of a dataset for what would stop or mislead a training.

    Args:
        dataset: see `layouts.find`. Where it declares no labels, any whole numbers are taken for labels.

    Returns:
        The report. A case that cannot be read is a finding and never an exception.
    """
    look = functools.partial(examine, labels=dataset.labels)
    exams = reading.each(look, dataset.cases, "checking", len(dataset.channels))
    findings = [*incomplete(dataset), *(finding for exam in exams for finding in exam.findings)]
    for compare in (_channels, _spacings, _duplicates, _leaks, _sides, _labels):
        findings += compare(dataset, exams)
    return Report.of(dataset, findings)


def _channels(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    """Most cases decide how many channels there are, and not the first or the description."""
    counts, named = Counter(exam.channels for exam in exams if exam.digest), len(dataset.channels)
    most = max(counts, key=lambda count: (counts[count], count == named), default=named)
    for exam in exams:
        if exam.digest and exam.channels != most:
            yield Finding(
                "error", exam.case.id, "channels", f"{counted(exam.channels, 'channel')}, but most cases have {most}"
            )
    if most != named:
        given = f"{counted(named, 'is', 'are')} named: {few(dataset.channels, 8)}"
        text = f"most images have {counted(most, 'channel')}, but {given}. Correct the names"
        yield Finding("warning", "", "channels", text)


def _spacings(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    """Voxels more than twice, or less than half, as long as most: often a wrong header. Axes are taken by direction."""
    spacings = {
        exam.case.id: np.array(exam.geometry.spacing_along("RAS")) for exam in exams if exam.geometry is not None
    }
    median = np.median(list(spacings.values()) or [np.ones(3)], axis=0)
    for name, spacing in spacings.items():
        if np.abs(np.log2(spacing / median)).max() > 1:
            here, most = (" x ".join(f"{s:.3g}" for s in v) for v in (spacing, median))
            yield Finding("warning", name, "spacing", f"spacing is {here} mm (along R, A, S); the median is {most} mm")


def _duplicates(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    for exam, twin in _twins(exams, lambda exam: exam.digest):
        text = f"the image's voxels are those of {twin.case.id}"
        if exam.case.group == twin.case.group or not (exam.case.label and twin.case.label):
            yield Finding("warning", exam.case.id, "duplicate", text)
        else:
            text += ", as of another patient: one may be learned from and the other reported. Remove one, or give both one group"
            yield Finding("error", exam.case.id, "duplicate", text)


def _twins(exams: Sequence[Exam], key: Callable[[Exam], str]) -> Iterator[tuple[Exam, Exam]]:
    """Each case with an earlier one of the same key."""
    first: dict[str, Exam] = {}
    for exam in exams:
        if key(exam) and (twin := first.setdefault(key(exam), exam)) is not exam:
            yield exam, twin


def _leaks(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    """Patients, and images of equal voxels, on both sides of the declared split."""
    same: dict[str, Callable[[Exam], str]] = {"patient": lambda e: e.case.group, "image": lambda e: e.digest}
    for what, key in same.items():
        for exam, twin in _twins(exams, key):
            here, there = (e.case.split or "train" for e in (exam, twin))
            if here != there:
                text = f"same {what} as {twin.case.id}, but one is in {here}, the other in {there} (the declared split)"
                yield Finding("error", exam.case.id, "leak", text)


def _sides(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    """Structures of the left that lie to the right of their twins."""
    labels = dataset.labels
    for pair in [(labels.names[a], labels.names[b]) for a, b in labels.sides()] if labels else []:
        (left, right), both = pair, [exam for exam in exams if pair in exam.swapped]
        swapped = [exam for exam in both if exam.swapped[pair]]
        so = f"{len(both) - len(swapped)} of {len(both)} cases that have both"
        text = f"left is {left}, right is {right}: they lie on these sides in {so}"
        yield Finding("note", "", "sides", text)
        for exam in swapped:
            text = f"{left} lies to the right of {right}: labels swapped, or the image mirrored?"
            yield Finding("warning", exam.case.id, "sides", text)


def _labels(dataset: Dataset, exams: Sequence[Exam]) -> Iterator[Finding]:
    values = frozenset[int]().union(*(exam.values for exam in exams))
    masked = sum(exam.masked for exam in exams)
    if not values and masked:
        yield Finding("error", "", "empty", reading.empty_masks(masked))
    elif not values:
        yield Finding("error", "", "empty", "no mask can be used")
    elif dataset.labels is None:
        yield _undeclared({exam.case.id: (exam.values,) for exam in exams})
        yield from _strays(exams)
    elif dataset.labels.exclusive:
        for item in (item for item in dataset.labels if not values & set(item.values)):
            yield Finding("warning", "", "labels", f"'{item.name}' ({few(item.values)}) is in no mask")
    if dataset.labels and dataset.labels.twins:
        yield Finding("warning", "", "labels", f"{dataset.labels.twins}. Is one of them mistyped?")
    if (patients := len({case.group for case in dataset.labelled})) < 2:
        yield Finding(
            "error", "", "too-few", f"{counted(patients, 'labelled patient')}; training needs at least 2, better 20"
        )


def _strays(exams: Sequence[Exam]) -> Iterator[Finding]:
    """Values that nobody declares, and that one mask of several has alone."""
    counts = Counter(value for exam in exams for value in exam.values)
    masks = sum(exam.masked for exam in exams)
    if masks < _ENOUGH or len(counts) > _INSTANCES:
        return
    for exam in exams:
        if alone := sorted(value for value in exam.values if counts[value] == 1):
            what = f"{few(map(shown, alone), 8)} {'is' if len(alone) == 1 else 'are'} in this mask alone, of {masks}"
            text = f"{what}, and would be learned as a structure: is that meant? If not, correct the mask"
            yield Finding("warning", exam.case.id, "labels", text)


def _undeclared(masks: Mapping[str, MaskValues]) -> Finding:
    """What to say of labels that nobody declares: each value in the masks becomes one."""
    try:
        values = reading.discover_labels(masks).values
    except DataError as error:
        return Finding("error", "", "labels", str(error))
    many = len(values) > _INSTANCES
    doubt = "; are these numbered instances? Each would become a label" if many else ""
    text = f"no labels are declared; the masks hold {few(map(shown, values), 8)}{doubt}"
    return Finding("warning" if many else "note", "", "labels", text)
