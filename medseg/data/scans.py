"""The scans to segment, in files and folders that people name: formats, channels and DICOM series are told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg import io, progress
from medseg.data.layouts import CHANNEL
from medseg.errors import DataError
from medseg.io import dicom, raster
from medseg.wording import counted, few, repeated

PROBABILITIES, VARIANCES = "_probabilities", "_variances"  # how the names of files end that lie beside a mask


@dataclass(frozen=True)
class Scan:
    """One scan to segment: a name for its mask, and one file (or DICOM folder) a channel or one for all."""

    id: str
    images: tuple[Path, ...]


def find(inputs: Iterable[str | Path], channels: int | None = None) -> list[Scan]:
    """The scans of files, folders of scans, DICOM folders, or `a.nii.gz,b.nii.gz` for the channels of one scan.

    Files in folders below a folder are left out, with a warning. In a folder, names that differ in `_0000`, `_0001` ... are channels of
    one scan; numbers that do not count from 0, or not to the model's number of `channels`, are part of the names. Pictures
    beside or above DICOM series are thumbnails or logos of an export, and are set aside.

    Raises:
        DataError: nothing there, nothing that may be read, or two scans would have one name.
    """
    try:
        scans = [scan for item in inputs for scan in _of(str(item), channels)]
    except OSError as error:
        raise DataError(
            f"'{error.filename}' cannot be read ({error.strerror}). Name scans or folders that you may read."
        ) from error
    if twice := sorted(repeated(scan.id for scan in scans)):
        raise DataError(f"two scans share the name '{twice[0]}', so that one mask would replace the other. Rename one.")
    return scans


def _of(item: str, channels: int | None) -> list[Scan]:
    parts = [Path(part) for part in item.split(",")] if "," in item and not Path(item).exists() else [Path(item)]
    if missing := [part for part in parts if not io.exists(part)]:
        raise DataError(f"no such scan: '{missing[0]}'")
    if len(parts) > 1:
        return [Scan(_grouped(parts, None)[0].id, tuple(parts))]
    if dicom.is_address(parts[0]):
        return _grouped(parts, channels)
    if parts[0].is_dir():
        return _in_folder(parts[0], channels)
    return _volumes(parts) or _grouped(parts, channels) if dicom.matches(parts[0]) else _grouped(parts, channels)


def _in_folder(folder: Path, channels: int | None) -> list[Scan]:
    here = sorted(folder.iterdir())
    found = without_probabilities([path for path in here if path.is_file() and _is_volume(path)])
    series = _volumes([folder, *(path for path in here if path.suffix.lower() == ".zip")])
    below = (
        path for path in folder.rglob("*") if path.parent != folder and path.is_file() and not _hidden(path, folder)
    )
    deeper = sum(_is_volume(path) and not raster.matches(path) for path in below)
    if not series and not found:
        where = f" {deeper} lie in its subfolders: name those." if deeper else ""
        raise DataError(
            f"'{folder}' holds no scans.{where} Known files: {', '.join(io.SUFFIXES)}, or DICOM series in folders."
        )
    if deeper:
        progress.warn(f"left out: {counted(deeper, 'scan')} in subfolders; name those folders to include them")
    if not all(raster.matches(path) for path in found):
        if others := [scan for scan in series if _folder(scan.images[0]) != folder]:
            progress.warn(f"set aside: {len(others)} DICOM series below a folder of scans; name them to include them")
        return _grouped(found, channels)
    if series and found:
        ids = few(scan.id for scan in series)
        progress.warn(f"set aside: {counted(len(found), 'picture')} in the folder of the DICOM series {ids}")
    return series or _grouped(found, channels)


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file lies in a hidden folder below a folder: what a killed process left, a trash."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _volumes(paths: Iterable[Path]) -> list[Scan]:
    """The DICOM volumes of folders, files and zips; those that cannot be read too, for reading them says why."""
    listings = [dicom.find(path) for path in paths]
    aside = sum((Counter(listing.aside) for listing in listings), Counter[str]())
    if aside:
        progress.say(f"set aside: {', '.join(f'{count} x {what}' for what, count in sorted(aside.items()))}")
    bad = {file.source.folder for listing in listings for file in listing.damaged}
    found = [Scan(item.id, (item.path,)) for listing in listings for item in listing.volumes]
    return found + [Scan(dicom.identifier(folder), (folder,)) for folder in sorted(bad)]


def without_probabilities(paths: Sequence[Path]) -> list[Path]:
    """Files without those of probabilities that medseg wrote beside a mask."""
    names = {io.bare_name(path) for path in paths}
    endings = (PROBABILITIES, VARIANCES)
    likely = {name for name in names for end in endings if name.endswith(end) and name.removesuffix(end) in names}
    if likely:
        progress.warn(f"set aside: {counted(len(likely), 'file')} of probabilities beside a mask")
    return [path for path in paths if io.bare_name(path) not in likely]


def _is_volume(path: Path) -> bool:
    """Whether a file is a scan by itself; a DICOM file is a slice of one."""
    name = path.name.lower()
    return name.endswith(io.SUFFIXES) and not name.endswith(dicom.SUFFIXES) and not name.startswith(".")


def _grouped(paths: Sequence[Path], channels: int | None) -> list[Scan]:
    """One scan for files whose numbers count the model's channels from 0, one per file otherwise."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(CHANNEL.sub("", io.stem(path)), []).append(path)
    scans = []
    for name, group in groups.items():
        numbered = [io.stem(path) for path in group] == [f"{name}_{n:04d}" for n in range(len(group))]
        if numbered and len(group) == (channels or len(group)):
            scans.append(Scan(name, tuple(group)))
        else:
            scans += [Scan(io.stem(path), (path,)) for path in group]
    return scans
