"""Commands about data: whether they can be trained on, from DICOM, and what training kept of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli._shared import Data, Modality
from medseg.errors import MedsegError
from medseg.wording import counted


def check(
    data: Data,
    modality: Modality = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a repaired copy of the dataset there.")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="I J K", help="With --fix: voxel size of PNG, TIFF, JPEG in mm: columns, rows, pages."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find what is wrong with a dataset before training. The exit code is 2 when training would fail."""
    from medseg import api

    if spacing and fix is None:
        raise typer.BadParameter("it only applies to a repaired copy: add --fix OUT", param_hint="--spacing")
    found: Any = (
        api.check(data, modality=modality)
        if fix is None
        else api.repair(data, fix, spacing_mm=spacing, modality=modality)
    )
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else found.table())
    raise typer.Exit(0 if found.ok else 2)


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM: a file, folder, DICOMDIR or zip.")],
    target: Annotated[
        Path | None, typer.Argument(metavar="DST", help="Folder; or the file, where there is one volume.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what is there; pixels are not read.")] = False,
    series: Annotated[
        str | None, typer.Option(help="Only this one: number, UID, id, or a part of its description.")
    ] = None,
    format: Annotated[str, typer.Option(help="nifti, nrrd.")] = "nifti",
    channels: Annotated[
        bool, typer.Option("--channels", help="Echoes, times, directions of one grid in one file (4D).")
    ] = False,
    upright: Annotated[bool, typer.Option("--upright", help="Resample tilted stacks to right angles.")] = False,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Fill gaps between slices.")] = False,
    units: Annotated[str, typer.Option(help="stored, or suv: PET by body weight.")] = "stored",
) -> None:
    """Convert DICOM to NIfTI or NRRD, one file per volume. Nothing of the patient is written."""
    from medseg import api

    if listed:
        typer.echo(api.list_series(source).table())
        return
    if target is None:
        raise typer.BadParameter("name a folder for the files, or add --list", param_hint="DST")
    how: dict[str, Any] = {"channels": channels, "upright": upright, "allow_gaps": allow_gaps, "units": units}
    outcomes = api.convert(source, target, format=format, series=series, **how)
    for outcome in outcomes:
        words = [outcome.volume, *outcome.notes] if outcome.file else [f"not converted: {outcome.error}"]
        typer.echo(f"{outcome.file.name if outcome.file else outcome.id}: {'; '.join(words)}")
    if failed := [outcome for outcome in outcomes if outcome.error]:
        first = failed[0].error if failed[0].id == "-" else f"{failed[0].id}: {failed[0].error}"
        raise MedsegError(f"{len(failed)} of {counted(len(outcomes), 'volume')} could not be converted; {first}")


def cache(
    folder: Annotated[Path, typer.Argument(help="Folder of prepared cases (medseg_cache beside the runs).")],
) -> None:
    """Empty a cache of prepared cases; they are patient data."""
    from medseg.training import prepared

    typer.echo(f"removed {prepared.empty(folder)} prepared cases")
