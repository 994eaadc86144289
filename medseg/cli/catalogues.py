"""Commands that list what there is: models, losses, this machine."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from medseg import system
from medseg.errors import ConfigError

_SHOWN = 10  # measurements of this machine


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show all presets of this one.")] = None,
    dims: Annotated[int, typer.Option(help="2 or 3: count for images or for volumes.")] = 3,
    page: Annotated[bool, typer.Option("--page", help="Print docs/models.md.")] = False,
) -> None:
    """List networks with paper, family, parameters and costs. With a name: all presets of that one."""
    from medseg.models import _table

    if page and name:
        raise ConfigError(f"--page: the page is of all models, got '{name}' too. Leave one of them out.")
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
    """Describe this machine, for a question or a paper. It also says how models that it has seen compute quickest here."""
    from medseg.inference import autotuning

    for name, value in system.facts().items():
        typer.echo(f"{name:18s} {value}")
    records = list(autotuning.remembered().values())
    if records:
        shown = f", the last {_SHOWN} of {len(records)}" if len(records) > _SHOWN else ""
        typer.echo(f"how models were found to be computed quickest{shown}:")
    for record in records[-_SHOWN:]:
        typer.echo(f"  {record}")
