"""Commands that list what there is: models, losses, this machine."""

from __future__ import annotations

import typer

from medseg import system


def models() -> None:
    """List architectures and their presets."""
    from medseg import models as zoo

    for name in zoo.names():
        typer.echo(f"{name:20s} {', '.join(zoo.presets(name))}")


def losses() -> None:
    """List losses with formula, paper, equation and options."""
    from medseg import losses as zoo

    typer.echo("\n\n".join(map(str, zoo.list_losses())))


def doctor() -> None:
    """Say what this machine is, for a question or a paper, and how it computes the models it has seen."""
    from medseg import arithmetic

    for name, value in system.facts().items():
        typer.echo(f"{name:18s} {value}")
    for record in arithmetic.remembered().values():
        typer.echo(record)
