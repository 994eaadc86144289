"""Tables: CSV files by their headings, and text in columns."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import files
from medseg.errors import DataError
from medseg.wording import brief, counted, repeated


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same keys as CSV; numbers have six digits, and one that is not a number stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    files.write_text(path, text.getvalue())


def read(path: Path, *columns: str, numbers: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of a CSV by its heading, all as text; empty ones are left out.

    A spreadsheet may have saved it again: with a byte order mark, or with semicolons (or tabs) between cells and decimal commas.

    Args:
        path: of the CSV, in UTF-8.
        columns: what the heading has to hold.
        numbers: columns of which each cell, if they are there, is empty or what `float` reads.

    Raises:
        DataError: it cannot be read, lacks a column, or a cell is no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        heading, *rows = list(csv.reader(io.StringIO(text), delimiter=separator)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is not readable as a table in UTF-8: {error}") from error
    require(path, columns, heading)
    if twice := repeated(filter(None, heading)):
        raise DataError(f"'{path}' has two columns '{twice[0]}'. Remove one.")
    found = []
    for line, row in enumerate(rows, 2):
        if len(row) != len(heading) and any(row):
            raise DataError(f"'{path}', row {line}: expected {counted(len(heading), 'cell')}, got {len(row)}")
        if any(row):
            cells = dict(zip(heading, row, strict=True))
            values = {name: _number(path, line, name, cells[name], separator) for name in numbers if name in cells}
            found.append(cells | values)
    return found


def _number(path: Path, line: int, name: str, cell: str, separator: str) -> str:
    """A cell that holds a number or nothing, as `float` reads it."""
    text = cell.strip() if separator == "," else cell.strip().replace(",", ".")
    try:
        float(text or "nan")
    except ValueError:
        raise DataError(f"'{path}', row {line}: {name} is {brief(cell)}, expected a number or nothing") from None
    return text


def require(path: Path, expected: Iterable[str], found: Container[str]) -> None:
    """Check that a file that medseg wrote holds what is expected of it.

    Raises:
        DataError: something is missing.
    """
    if missing := [name for name in expected if name not in found]:
        raise DataError(f"'{path}' lacks {', '.join(missing)}. Let medseg write it again, or remove it.")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of as many cells each as text: the first column begins at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def number(value: float, form: str) -> str:
    """A number as text; a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)


def interval(mean: float, low: float, high: float, form: str = ".3f") -> str:
    """A mean and the interval around it, where there is one."""
    return number(mean, form) + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if math.isnan(value) else f"{value:.6g}"
