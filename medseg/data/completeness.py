"""What is missing from a dataset: images of masks, listed files, channels. It is refused, or such cases are set aside."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from medseg import io
from medseg.data.cases import Case, Dataset
from medseg.errors import DataError
from medseg.wording import counted, few


def check(dataset: Dataset, whole: bool, files: int) -> Dataset:
    """The dataset if nothing is missing, or without the cases that miss something; at least one labelled case has to be left.

    Args:
        dataset: as it is listed.
        whole: refuse an incomplete dataset; False sets such cases aside, see `Dataset.incomplete`.
        files: number of files of each image; 0 for any number.

    Raises:
        DataError: something is missing.
    """
    missing = dict.fromkeys(path for case in dataset.cases for path in case.files if not io.exists(path))
    incomplete = {case.id: why for case in dataset.cases if (why := _missing(case, missing, files))}
    cases = tuple(case for case in dataset.cases if case.id not in incomplete)
    if incomplete and (whole or not any(case.label for case in cases)):
        raise DataError(_describe(dataset, missing))
    return dataset.replace(cases=cases, incomplete=incomplete)


def _missing(case: Case, missing: Collection[Path], files: int) -> str:
    """Why a case cannot be used; empty if it can."""
    if not case.images:
        return "the mask has no image of the same name"
    if files and len(case.images) != files:
        return f"{counted(files, 'channel is', 'channels are')} named, and it has {len(case.images)}"
    names = [case.without_paths(f"'{path}'") for path in case.files if path in missing]
    return f"{few(names)} is not there" if names else ""


def _describe(dataset: Dataset, missing: Collection[Path]) -> str:
    """The message about all that is missing: images of masks, or else listed files, or channels."""
    if alone := [case for case in dataset.cases if not case.images]:
        masks, images = len(dataset.labelled), (case.id for case in dataset.cases if case.images)
        names = few(io.bare_name(case.label) for case in alone if case.label)
        return (
            f"{len(alone)} of {masks} masks have no image of the same name: {names}; images there: "
            f"{few(images) or 'none'}. Give both the same name, or run 'medseg check DATA --fix OUT' for a copy without."
        )
    if missing:
        count, root = sum(len(case.files) for case in dataset.cases), dataset.root
        shown = few(path.relative_to(root) if path.is_relative_to(root) else path for path in missing)
        return f"{len(missing)} of {count} files of '{root}' are missing: {shown}"
    named = len(dataset.channels)
    wrong = [case for case in dataset.cases if len(case.images) != named]
    counts = few(f"{case.id} has {len(case.images)}" for case in wrong)
    return (
        f"dataset.json names {counted(named, 'channel')}, but {len(wrong)} of {len(dataset.cases)} differ: {counts}. "
        "Complete them, or run 'medseg check DATA --fix OUT' for a copy without."
    )
