"""A repaired copy of a dataset: what `mending` can mend, each repair with its numbers; the original is never written to."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg import doctor, files, io, layouts, mending, reading
from medseg.cases import Case, Dataset
from medseg.declaration import shown
from medseg.errors import DataError, MedsegError
from medseg.findings import Finding, Report, incomplete
from medseg.io import raster
from medseg.labels import Labels
from medseg.plural import counted
from medseg.volume import Geometry, Volume

IMAGES, MASKS = "imagesTr", "labelsTr"


@dataclass(frozen=True)
class Repaired:
    """What became of a dataset.

    Args:
        folder: of the copy, a dataset with a `dataset.json`.
        repairs: what was done to which case.
        left_out: cases that are not in the copy, and why.
        report: of the copy.
    """

    folder: Path
    repairs: tuple[Finding, ...]
    left_out: tuple[Finding, ...]
    report: Report

    @property
    def ok(self) -> bool:
        """Whether nothing in the copy stops a training."""
        return self.report.ok

    def table(self) -> str:
        """All of it in lines of plain text."""
        lines = [f"{kind}  {f.case}: {f.message}" for kind, fs in self._listed() for f in fs]
        cases = len(self.left_out) + self.report.cases
        count = f"{counted(len(self.repairs), 'repair')}, {len(self.left_out)} of {counted(cases, 'case')} left out"
        return "\n".join([*lines, f"{count}; the copy: '{self.folder}'", "", self.report.table()])

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        listed = {kind: [asdict(finding) for finding in found] for kind, found in self._listed()}
        return {"folder": str(self.folder), **listed, "report": self.report.to_json()}

    def _listed(self) -> Iterator[tuple[str, Sequence[Finding]]]:
        yield "repaired", self.repairs
        yield "left_out", self.left_out


@dataclass(frozen=True)
class _Copied:
    """A case in the copy: its place in the list of the dataset, and what was done to it."""

    case: Case
    entry: Mapping[str, Any] | None
    findings: tuple[Finding, ...]


def repair(dataset: Dataset, out: str | Path, spacing_mm: Sequence[float] | None = None) -> Repaired:
    """Write a repaired copy of a dataset.

    Args:
        dataset: see `layouts.find`.
        out: a new or empty folder.
        spacing_mm: of plain images, which hold none: of columns, rows and pages; they become NIfTI then.

    Returns:
        The repairs, what was left out, and the report of the copy.

    Raises:
        DataError: the folder is not empty or lies within the dataset, structures of DICOM objects overlap, or no case could be
            repaired.
    """
    out = _new(Path(out), dataset.root)
    if any(case.structures for case in dataset.cases) and dataset.labels and not dataset.labels.exclusive:
        raise DataError(
            "structures of DICOM objects that overlap have no place in a copy of one value a voxel. Train on the studies as they are."
        )
    found = reading.each(functools.partial(_values, dataset.labels), dataset.labelled, "reading masks")
    into = mending.table({value for values in found for value in values}, dataset.labels)
    copy = functools.partial(_copied, out=out, into=into, labels=dataset.labels, spacing_mm=spacing_mm)
    copies = reading.each(copy, dataset.cases, "repairing", len(dataset.channels))
    good = [item for item in copies if item.entry is not None or _removed(out, item)]
    left_out = [*incomplete(dataset), *(found for item in copies if item.entry is None for found in item.findings)]
    while True:
        report = _checked(dataset, out, good, into, left_out)
        bad = {finding.case: finding for finding in report.findings if finding.severity == "error" and finding.case}
        if not bad:
            break
        left_out += bad.values()
        good = [item for item in good if item.case.id not in bad or _removed(out, item)]
    repairs = tuple(finding for item in good for finding in item.findings)
    done = Repaired(out, repairs, tuple(left_out), report)
    files.write_json(out / "repairs.json", done.to_json())
    return done


def _new(out: Path, root: Path) -> Path:
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"'{out}' lies within the dataset, which is never written to. Choose a folder beside it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"'{out}' is not empty. Choose a new folder for the repaired copy.")
    return out


def _values(labels: Labels | None, case: Case) -> frozenset[int]:
    """The values of a mask besides 0; none where it cannot be read, which is said later. Structures by name have no others than
    their labels'."""
    assert case.label is not None
    if case.structures:
        return frozenset(labels.values if labels else ())
    try:
        mask, _ = mending.as_values(io.read(case.label, "labels"), labels.allowed_channels if labels else (1,))
        return frozenset[int]().union(*reading.mask_values(mask))
    except Exception:
        return frozenset()


def _copied(
    case: Case, out: Path, into: Mapping[int, int], labels: Labels | None, spacing_mm: Sequence[float] | None
) -> _Copied:
    try:
        grid, image = _images(case, out, spacing_mm)
        entry = {"image": image, "group": case.group} | ({"split": case.split} if case.split else {})
        if case.label is None:
            return _Copied(case, entry, ())
        mask, done = _mended(case, grid, into, labels, spacing_mm)
        name = f"{MASKS}/{case.id}.nii.gz" if done else _copy(case.label, out / MASKS / case.id, spacing_mm)
        if done:
            io.write(mask, out / name, parents=True)
        findings = tuple(Finding("note", case.id, kind, words) for kind, words in done.items())
        return _Copied(case, entry | {"label": name}, findings)
    except MedsegError as error:
        reason = case.without_paths(str(error))
    except Exception as error:  # its own words may quote a path or the patient's data
        reason = f"a file is damaged, or of a kind that cannot be read ({type(error).__name__}). Export it again."
    return _Copied(case, None, (Finding("error", case.id, "unusable", reason),))


def _mended(
    case: Case, grid: Geometry, into: Mapping[int, int], labels: Labels | None, spacing_mm: Sequence[float] | None
) -> tuple[Volume, dict[str, str]]:
    """The mask with all repairs, and what they are by their kind."""
    assert case.label is not None
    if case.structures:
        return reading.read_mask(case, grid), {"objects": "structures of DICOM objects are values now, by their names"}
    mask, done = _read(case.label, "labels", spacing_mm), {}
    done["float labels"] = mending.whole(mask)
    mask, done["colours"] = mending.as_values(mask, labels.allowed_channels if labels else (1,))
    mask, done["grid"] = mending.onto(mask, grid)
    mask, done["values"] = mending.recoded(mask, into)
    return mask, {kind: words for kind, words in done.items() if words}


def _images(case: Case, out: Path, spacing_mm: Sequence[float] | None) -> tuple[Geometry, str]:
    """Copy the images of a case; the grid of the first, and what a list of files calls them."""
    first = case.images[0]
    grid = _read(first, "image", spacing_mm).geometry if raster.matches(first) else io.read_geometry(first)
    if len(case.images) == 1:
        return grid, _copy(case.images[0], out / IMAGES / case.id, spacing_mm)
    for number, path in enumerate(case.images):
        _copy(path, out / IMAGES / f"{case.id}_{number:04d}", spacing_mm)
    return grid, f"{IMAGES}/{case.id}"


def _read(path: Path, kind: Any, spacing_mm: Sequence[float] | None) -> Volume:
    return io.read(path, kind, spacing_mm=spacing_mm if raster.matches(path) else None)


def _copy(path: Path, target: Path, spacing_mm: Sequence[float] | None) -> str:
    """Copy a scan as it is, or as NIfTI where it lies in several files or gets a spacing; its name in the dataset."""
    ending = io.ending(path)
    if path.is_dir() or not ending or io.parts(path) != [path] or (spacing_mm and raster.matches(path)):
        target = target.with_name(f"{target.name}.nii.gz")
        kind = "labels" if target.parent.name == MASKS else "image"
        io.write(_read(path, kind, spacing_mm), target, parents=True)
    else:
        target = target.with_name(f"{target.name}{ending}")
        with files.atomic(target) as temporary:
            shutil.copyfile(path, temporary)
    return f"{target.parent.name}/{target.name}"


def _checked(
    dataset: Dataset, out: Path, good: Sequence[_Copied], into: Mapping[int, int], left_out: Sequence[Finding]
) -> Report:
    """List the cases of the copy, and look at all of it again."""
    if not any(item.case.label for item in good):
        first = f"; {left_out[0].case}: {left_out[0].message}" if left_out else ""
        raise DataError(f"no labelled case could be repaired{first}")
    labels = dataset.labels
    if labels is None and any(value >= 256 for value in into):
        declared: dict[str, Any] = {"background": 0, **{shown(value): number for value, number in into.items()}}
    else:
        declared = _declared(labels) if labels else {}
    description = {
        "name": dataset.name,
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        **({"labels": declared} if declared else {}),
        **({"regions_class_order": labels.order} if labels and labels.order else {}),
        "training": [item.entry for item in good],
    }
    files.write_json(out / "dataset.json", description)
    return doctor.check(layouts.find(out))


def _declared(labels: Labels) -> dict[str, Any]:
    ignore = {} if labels.ignore is None else {"ignore": labels.ignore}
    return {"background": 0, **{item.name: list(item.values) for item in labels}, **ignore}


def _removed(out: Path, item: _Copied) -> bool:
    """Take a case out of the copy; false, for it is no longer there."""
    for folder in (IMAGES, MASKS):
        for path in (out / folder).glob("*"):
            if layouts.CHANNEL.sub("", io.bare_name(path)) == item.case.id or io.bare_name(path) == item.case.id:
                path.unlink()
    return False
