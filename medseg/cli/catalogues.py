"""Commands that list what there is: models, losses, this machine."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from medseg import system

_SHOWN = 10  # measurements of this machine


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them: all its presets.")] = None,
    dims: Annotated[int, typer.Option(help="2 or 3: count for images or for volumes.")] = 3,
    page: Annotated[bool, typer.Option("--page", help="Print docs/models.md.")] = False,
) -> None:
    """List architectures with paper, family, parameters, operations and memory; of one, all its presets."""
    from medseg.models import _table

    if page:
        typer.echo(_table.page(), nl=False)
    elif name:
        typer.echo(_table.presets(name, dims))
    else:
        width = shutil.get_terminal_size((0, 0)).columns  # 0 where nobody looks: a pipe or a file gets whole lines
        typer.echo(_table.overview(dims, width))


def losses() -> None:
    """List losses with formula, paper, equation and options."""
    from medseg import losses as zoo

    typer.echo("\n\n".join(map(str, zoo.list_losses())))


def doctor() -> None:
    """Say what this machine is, for a question or a paper, and how it computes the models it has seen."""
    from medseg import arithmetic

    for name, value in system.facts().items():
        typer.echo(f"{name:18s} {value}")
    records = list(arithmetic.remembered().values())
    if records:
        shown = f", the last {_SHOWN} of {len(records)}" if len(records) > _SHOWN else ""
        typer.echo(f"how models were found to be computed quickest{shown}:")
    for record in records[-_SHOWN:]:
        typer.echo(f"  {record}")
