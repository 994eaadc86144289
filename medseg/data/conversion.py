"""DICOM to NIfTI or NRRD: one file per volume, and beside it what is known of it; a bad volume never stops the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg import files, io, progress
from medseg import geometry as geo
from medseg.errors import DataError, MedsegError
from medseg.io import dicom
from medseg.settings import Settings
from medseg.volume import Geometry, Volume
from medseg.wording import counted

_ENDINGS = {"nifti": ".nii.gz", "nrrd": ".nrrd"}
_SAME_MM = 1e-3
_UPRIGHT_DEG = 0.1  # shear above which a stack counts as tilted


class Config(Settings):
    """What becomes of DICOM volumes.

    Args:
        format: "nifti" or "nrrd".
        series: those of one series: by its number, its UID or id, or a part of its description.
        channels: volumes of one series and grid (echoes, times, directions) in one file instead of one each.
        upright: resample a tilted stack to a grid with right angles.
        allow_gaps: fill missing slices, and even out uneven ones, between slices at their true positions.
        units: "suv" for PET by body weight; all else keeps its own.
    """

    format: Literal["nifti", "nrrd"] = "nifti"
    series: str | None = None
    channels: bool = False
    upright: bool = False
    allow_gaps: bool = False
    units: Literal["stored", "suv"] = "stored"


@dataclass(frozen=True)
class Outcome:
    """What became of a volume: its file and what was odd, or why there is none. Files that nobody can read have an id of "-"."""

    id: str
    file: Path | None = None
    volume: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""


def convert(source: str | Path, target: str | Path, config: Config) -> list[Outcome]:
    """Convert all volumes of a file, a folder, a DICOMDIR or a zip.

    Files are named by the volume's id, a hash of its SeriesInstanceUID, as masks of DICOM series are. Beside each lies `ID.json`:
    grid, acquisition, what was odd; nothing of the patient.

    Args:
        source: of DICOM.
        target: a folder; or, where there is one volume, a file whose name ends as the format's does.
        config: what becomes of them.

    Raises:
        DataError: nothing to convert, or several volumes for one file.
    """
    listing = dicom.find(source)
    groups = _groups(listing.pick(config.series) if config.series else listing.volumes, config.channels)
    if not groups and not listing.damaged:
        aside = listing.table().partition("\n")[2]
        raise DataError(f"'{source}' holds no DICOM volume{aside and f'; {aside}'}. Name a series of images.")
    targets = _targets(Path(target), [group[0].id for group in groups], _ENDINGS[config.format])
    work = zip(groups, targets, strict=True)
    outcomes = [_converted(group, path, config) for group, path in progress.track(work, "converting", len(groups))]
    return [*outcomes, *(Outcome("-", error=damage) for damage in ([] if config.series else listing.damage))]


def _groups(volumes: Sequence[dicom.Found], channels: bool) -> list[list[dicom.Found]]:
    """What goes into one file: each volume, or all of a series and grid."""
    groups: list[list[dicom.Found]] = []
    for found in volumes:
        fitting = (group for group in groups if channels and _fit(group[0], found))
        if group := next(fitting, None):
            group.append(found)
        else:
            groups.append([found])
    return groups


def _fit(a: dicom.Found, b: dicom.Found) -> bool:
    one, other = a.stack.grid, b.stack.grid
    if one is None or other is None or a.file.series != b.file.series or bool(a.refusal) != bool(b.refusal):
        return False
    return one.shape == other.shape and one.apart_mm(other) <= _SAME_MM


def _targets(target: Path, names: Sequence[str], ending: str) -> list[Path]:
    """The file of each volume."""
    if not target.name.lower().endswith(io.WRITTEN) or target.is_dir():
        return [target / f"{name}{ending}" for name in names]
    if len(names) != 1 or not target.name.lower().endswith(ending):
        raise DataError(
            f"'{target.name}' is one file, for {counted(len(names), 'volume')} to be written as {ending}. Name a folder, or one "
            "series with --series."
        )
    return [target]


def _converted(group: Sequence[dicom.Found], target: Path, config: Config) -> Outcome:
    first = group[0]
    try:
        volume = _read(group, config)
        io.write(volume, target, parents=True)
        name = target.name[: len(target.name) - len(io.ending(target))]
        files.write_json(target.with_name(f"{name}.json"), _sidecar(first, volume))
    except MedsegError as error:
        return Outcome(first.id, error=str(error).removeprefix(f"'{first.id}': "))
    return Outcome(first.id, target, _summary(volume.geometry, volume.channels), volume.meta["notes"])


def _read(group: Sequence[dicom.Found], config: Config) -> Volume:
    """The volume of a file; errors name its id, for folders may be named after patients."""
    name = Path(group[0].id)
    options: dict[str, Any] = {"allow_gaps": config.allow_gaps, "units": config.units, "path": name}
    volume = dicom.together(name, [dicom.load(found, **options) for found in group])
    if config.upright and volume.geometry.shear_deg > _UPRIGHT_DEG:
        padding = volume.meta["padding"]
        fill = float(volume.array.min()) if padding is None else padding
        upright = geo.resample_to(volume, geo.upright(volume.geometry), fill=fill)
        note = f"made upright: resampled from a grid {volume.geometry.shear_deg:.1f} degrees off right angles"
        volume = upright.replace(meta={**volume.meta, "notes": (*volume.meta["notes"], note)})
    return volume


def _sidecar(found: dicom.Found, volume: Volume) -> dict[str, Any]:
    """What is known of a volume, as JSON: the grid in RAS+ mm, and the facts of its `meta`."""
    grid = volume.geometry
    place = {
        "shape": grid.shape,
        "spacing_mm": grid.spacing_mm,
        "axcodes": grid.axcodes,
        "affine": grid.affine.tolist(),
    }
    return {"id": found.id, **place, "channels": volume.channels, **volume.meta}


def _summary(grid: Geometry, channels: int) -> str:
    size = "x".join(map(str, [*grid.shape, *([channels] if channels > 1 else [])]))
    return f"{size}, {' x '.join(f'{mm:.4g}' for mm in grid.spacing_mm)} mm, {grid.axcodes}"
