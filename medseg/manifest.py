"""A CSV manifest: a table of `id`, `label`, `group`, `split` and one column a channel; paths are relative to it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from medseg.cases import Case, Dataset, few
from medseg.errors import DataError

SPLITS = {"": None, "train": "train", "val": "validation", "validation": "validation", "test": "test"}
_COLUMNS = ("id", "label", "group", "split")  # any other is a channel
_MASKS = ("mask", "seg", "segmentation")  # taken for `label` where there is none


def read(path: Path) -> Dataset:
    """The dataset of a table, in UTF-8, with commas, semicolons (spreadsheets that write 0,5) or tabs; files are not looked for.

    Raises:
        DataError: it is no such table, or a row does not fit its columns.
    """
    columns, *rows = _rows(path) or [(1, [])]
    header = [name.lower() if name.lower() in _COLUMNS else name for name in columns[1]]
    if "label" not in header:
        header = ["label" if name.lower() in _MASKS else name for name in header]
    channels = tuple(name for name in header if name and name not in _COLUMNS)
    named = [name for name in header if name]
    if "id" not in header or not channels or len(set(named)) < len(named):
        raise DataError(
            f"'{path}' needs a column 'id', one a channel such as 'image', and no name twice; it has: {few(columns[1], 8)}"
        )
    table = [(line, dict(zip_longest(header, row, fillvalue=""))) for line, row in rows if any(row)]
    cases = tuple(_case(cells, channels, path, line) for line, cells in table)
    return Dataset(path.stem, "CSV manifest", cases, None, () if channels == ("image",) else channels, path.parent)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each row without blanks around them, and the number of its last line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=text.partition("\n")[0].count), strict=True)
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is not readable as a table in UTF-8: {error}") from error


def _case(cells: Mapping[str, str], channels: tuple[str, ...], path: Path, line: int) -> Case:
    if not all(cells[name] for name in ("id", *channels)) or cells.get(""):
        raise DataError(f"'{path}', line {line}: expected {few(cells, 8)}; got {few(cells.values(), 8)}")
    if (split := cells.get("split", "").lower()) not in SPLITS:
        raise DataError(f"'{path}', line {line}: split must be train, validation, test or empty, got '{split}'")
    label = path.parent / cells["label"] if cells.get("label") else None
    images = tuple(path.parent / cells[name] for name in channels)
    return Case(cells["id"], images, label, cells.get("group", ""), SPLITS[split])
