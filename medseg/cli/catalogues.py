"""Commands that list what there is: models, losses, this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from medseg import system

_SHOWN = 10  # measurements of this machine


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them: all its presets.")] = None,
    dims: Annotated[int, typer.Option(help="2 or 3: count for images or for volumes.")] = 3,
    page: Annotated[bool, typer.Option("--page", help="Print docs/models.md.")] = False,
) -> None:
    """List architectures with paper, family and parameters; of one, presets with operations and memory."""
    from medseg.models import _table

    typer.echo(_table.page() if page else _table.presets(name, dims) if name else _table.overview(dims), nl=not page)


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
