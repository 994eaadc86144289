"""A repaired copy of a dataset: what `mask_repairs` can repair, each repair with its numbers; the original is never written to."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg import files, io
from medseg.data import doctor, layouts, mask_repairs, reading
from medseg.data.cases import Case, Dataset
from medseg.data.findings import Finding, Report, incomplete
from medseg.errors import DataError
from medseg.io import raster
from medseg.labels import Labels
from medseg.labels.declaration import shown
from medseg.volume import Geometry, Volume
from medseg.wording import counted

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
            "structures of DICOM objects that overlap have no place in a copy of one value per voxel. Train on the studies as they are."
        )
    found = reading.each(functools.partial(_values, dataset.labels), dataset.labelled, "reading masks")
    into = mask_repairs.table({value for values in found for value in values}, dataset.labels)
    copier = _Copier(dataset, out, into, spacing_mm)
    copies = reading.each(copier.copy, dataset.cases, "repairing", len(dataset.channels))
    failed = [item for item in copies if item.entry is None]
    good = [item for item in copies if item.entry is not None]
    left_out = [*incomplete(dataset), *(finding for item in failed for finding in item.findings)]
    copier.remove(failed)
    while True:
        report = copier.check(good, left_out)
        bad = {finding.case: finding for finding in report.findings if finding.severity == "error" and finding.case}
        if not bad:
            break
        left_out += bad.values()
        copier.remove([item for item in good if item.case.id in bad])
        good = [item for item in good if item.case.id not in bad]
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
        mask, _ = mask_repairs.as_values(io.read(case.label, "labels"), labels.allowed_channels if labels else (1,))
        return frozenset[int]().union(*reading.mask_values(mask))
    except Exception:
        return frozenset()


@dataclass(frozen=True)
class _Copier:
    """Copies the cases of a dataset into a folder, repaired.

    Args:
        dataset: the original.
        out: the folder.
        into: what values of masks become; see `mask_repairs.table`.
        spacing_mm: of plain images.
    """

    dataset: Dataset
    out: Path
    into: Mapping[int, int]
    spacing_mm: Sequence[float] | None

    def copy(self, case: Case) -> _Copied:
        """Copy the files of a case; one that cannot be repaired has no entry."""
        try:
            grid, image = self._images(case)
            entry = {"image": image, "group": case.group} | ({"split": case.split} if case.split else {})
            if case.label is None:
                return _Copied(case, entry, ())
            mask, done = self._mask(case, grid)
            name = f"{MASKS}/{case.id}.nii.gz" if done else self._file(case.label, self.out / MASKS / case.id)
            if done:
                io.write(mask, self.out / name, parents=True)
            findings = tuple(Finding("note", case.id, kind, words) for kind, words in done.items())
            return _Copied(case, entry | {"label": name}, findings)
        except Exception as error:
            return _Copied(case, None, (Finding("error", case.id, "unusable", case.reason(error)),))

    def _mask(self, case: Case, grid: Geometry) -> tuple[Volume, dict[str, str]]:
        """The mask with all repairs, and what they are by their kind."""
        assert case.label is not None
        if case.structures:
            words = "structures of DICOM objects are values now, by their names"
            return reading.read_mask(case, grid), {"objects": words}
        mask, done, labels = self._read(case.label, "labels"), {}, self.dataset.labels
        done["float labels"] = mask_repairs.whole(mask)
        mask, done["colours"] = mask_repairs.as_values(mask, labels.allowed_channels if labels else (1,))
        mask, done["grid"] = mask_repairs.onto(mask, grid)
        mask, done["values"] = mask_repairs.recoded(mask, self.into)
        return mask, {kind: words for kind, words in done.items() if words}

    def _images(self, case: Case) -> tuple[Geometry, str]:
        """Copy the images of a case; the grid of the first, and what a list of files calls them."""
        first, images = case.images[0], self.out / IMAGES
        grid = self._read(first, "image").geometry if raster.matches(first) else io.read_geometry(first)
        if len(case.images) == 1:
            return grid, self._file(first, images / case.id)
        for number, path in enumerate(case.images):
            self._file(path, images / f"{case.id}_{number:04d}")
        return grid, f"{IMAGES}/{case.id}"

    def _read(self, path: Path, kind: Any) -> Volume:
        return io.read(path, kind, spacing_mm=self.spacing_mm if raster.matches(path) else None)

    def _file(self, path: Path, target: Path) -> str:
        """Copy a scan as it is, or as NIfTI where it lies in several files or gets a spacing; its name in the dataset."""
        ending = io.ending(path)
        if path.is_dir() or not ending or io.parts(path) != [path] or (self.spacing_mm and raster.matches(path)):
            target = target.with_name(f"{target.name}.nii.gz")
            io.write(self._read(path, "labels" if target.parent.name == MASKS else "image"), target, parents=True)
        else:
            target = target.with_name(f"{target.name}{ending}")
            with files.atomic(target) as temporary:
                shutil.copyfile(path, temporary)
        return f"{target.parent.name}/{target.name}"

    def check(self, good: Sequence[_Copied], left_out: Sequence[Finding]) -> Report:
        """List the cases of the copy, and look at all of it again."""
        if not any(item.case.label for item in good):
            first = f"; {left_out[0].case}: {left_out[0].message}" if left_out else ""
            raise DataError(f"no labelled case could be repaired{first}")
        labels, declared = self.dataset.labels, dict[str, Any]()
        if labels:
            declared = _declared(labels)
        elif any(value >= 256 for value in self.into):
            declared = {"background": 0, **{shown(value): number for value, number in self.into.items()}}
        description = {
            "name": self.dataset.name,
            "channel_names": {str(number): name for number, name in enumerate(self.dataset.channels)},
            **({"labels": declared} if declared else {}),
            **({"regions_class_order": labels.order} if labels and labels.order else {}),
            "training": [item.entry for item in good],
        }
        files.write_json(self.out / "dataset.json", description)
        return doctor.check(layouts.find(self.out))

    def remove(self, items: Sequence[_Copied]) -> None:
        """Delete the files of some cases from the copy."""
        ids = {item.case.id for item in items}
        for path in [*(self.out / IMAGES).glob("*"), *(self.out / MASKS).glob("*")]:
            name = io.bare_name(path)
            if name in ids or layouts.CHANNEL.sub("", name) in ids:
                path.unlink()


def _declared(labels: Labels) -> dict[str, Any]:
    ignore = {} if labels.ignore is None else {"ignore": labels.ignore}
    return {"background": 0, **{item.name: list(item.values) for item in labels}, **ignore}
