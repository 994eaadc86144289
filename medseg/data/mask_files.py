"""The files of predicted masks: where each lies, and what may not be overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg import io
from medseg.data.dicom_objects import FORMATS
from medseg.data.scans import Scan
from medseg.errors import DataError
from medseg.wording import repeated


def mask_path(folder: Path, name: str, suffix: str = ".nii.gz") -> Path:
    """Where the mask of a scan lies in a folder of masks."""
    return folder / f"{name}{suffix}"


def maps_path(target: Path, name: str) -> Path:
    """The file of probabilities or variances beside a mask."""
    return target.with_name(f"{io.stem(target)}{name}.nii.gz")


def targets(scans: Sequence[Scan], out: Path, suffix: str, single: bool, beside: Sequence[str]) -> list[Path]:
    """The file of each mask.

    Args:
        scans: to be segmented.
        out: a folder, or for one scan the file of its mask.
        suffix: of masks in a folder.
        single: `out` is a file.
        beside: endings of the names of maps that are written beside each mask.

    Raises:
        DataError: a format that is not written, a file for several scans, or one that would replace a scan or another result.
    """
    if single and len(scans) != 1:
        raise DataError(f"-o names one file, but there are {len(scans)} scans. Name a folder.")
    if not single and len(scans) == 1 and out.suffix and not out.is_dir():
        raise DataError(
            f"'{out.name}' has no ending that masks are written with ({', '.join(io.WRITTEN)}). A folder needs no ending."
        )
    if not single and out.is_file():
        raise DataError(f"'{out.name}' is a file. Name a folder with -o.")
    suffix = io.ending(out) if single else suffix
    if suffix not in (*io.WRITTEN, *FORMATS.values()):
        known = [*(s[1:] for s in io.WRITTEN), *FORMATS]
        raise DataError(f"masks cannot be written as '{suffix.lstrip('.')}'. Known: {', '.join(known)}.")
    targets = [out if single else mask_path(out, scan.id, suffix) for scan in scans]
    written = targets + [maps_path(target, name) for target in targets for name in beside]
    read = {image.resolve() for scan in scans for image in scan.images}
    if lost := [target for target in written if target.resolve() in read]:
        raise DataError(f"a mask would replace the scan '{lost[0].name}'. Name another file or folder with -o.")
    if twice := repeated(written):
        raise DataError(f"two results would have the name '{twice[0].name}'. Rename a scan, or leave it out.")
    return targets
