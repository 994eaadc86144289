"""Commands that measure masks and show the measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of masks, a run, or one mask.")],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="References: folder of masks, dataset, or one mask. Or a second run.")
    ],
    references: Annotated[
        Path | None, typer.Argument(metavar="[REF]", help="References, where A and B are two sets of masks.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for tables and report.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas (dice,nsd,hd95_mm), usual or all. See docs/metrics.md.")
    ] = None,
    tolerance_mm: Annotated[
        float | None, typer.Option(help="Of the surface Dice (NSD); 1 mm unless given.", show_default=False)
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Run or bundle that knows the labels' names.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Only the cases that the run --model held out.")] = False,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Also summarise by a column of the manifest.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with id and COLUMN, where B is no manifest.")] = None,
) -> None:
    """Measure masks against references, or compare two runs. A are masks and B references; or A and B are runs; or both are masks, against REF."""
    from medseg import api, judging

    given: dict[str, Any] = {"metrics": metrics, "tolerance_mm": tolerance_mm, "model": model}
    asked = {name: value for name, value in given.items() if value is not None}
    if references is None and not judging.measured(a, b):
        typer.echo(api.evaluate(a, b, out, held_out=held_out, by=by, manifest=manifest, **asked).table())
        return
    if held_out or by or manifest:
        raise typer.BadParameter("--held-out, --by and --manifest are for masks against references, not for two runs")
    typer.echo(api.compare(a, b, references, out, **asked).table())


def report(folder: Annotated[Path, typer.Argument(help="Folder of a run or an evaluation.")]) -> None:
    """Write the report of a run or an evaluation again."""
    from medseg.evaluation import reporting

    typer.echo(reporting.report(folder))
