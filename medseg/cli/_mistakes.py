"""What a user reads of a mistake: one line."""

from __future__ import annotations

from typing import Any

import typer

# What typer raises for wrong words on the command line; newer ones bring a click of their own, so it is found by its child.
UsageError: Any = typer.BadParameter.__base__


def one_line(error: Any) -> str:
    """What to print of an error of medseg, of a file, or of the command line's words."""
    if isinstance(error, OSError) and error.filename:
        return f"'{error.filename}' cannot be used: {error.strerror}. Check that it exists and that you may read and write it."
    if not isinstance(error, UsageError):
        return " ".join(str(error).split())
    where = error.ctx.command_path if error.ctx else "medseg"
    said = error.format_message().rstrip(".")
    return f"{said}{'' if said.endswith('?') else '.'} See '{where} --help'."
