"""A CSV manifest: a table of `id`, `label`, `group` (the patient), `split` and one column per channel; paths are relative to it.

A column that names no scan (`site`, `age`) says something about the cases: results can be divided by it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from medseg.data.cases import Case, Dataset
from medseg.errors import DataError
from medseg.io import SUFFIXES
from medseg.wording import few

SPLITS = {"": None, "train": "train", "val": "validation", "validation": "validation", "test": "test"}
_COLUMNS = ("id", "label", "group", "split")  # any other is a channel, or about the cases
# Other words for columns, taken where there is none of the name; whoever wrote `patient` means that their scans belong together.
_MASKS = ("mask", "seg", "segmentation")
_PATIENTS = ("patient", "patientid", "subject", "subjectid", "participant", "participantid")


def read(path: Path) -> Dataset:
    """The dataset of a table, in UTF-8, with commas, semicolons (spreadsheets that write 0,5) or tabs.

    Whether the files are there is not checked.

    Raises:
        DataError: it is no such table, or a row does not fit its columns.
    """
    columns, header, rows = _table(path)
    others = [name for name in header if name and name not in _COLUMNS]
    about = tuple(name for name in others if not _names_scans(path.parent, [cells.get(name, "") for _, cells in rows]))
    about = () if len(about) == len(others) else about  # of scans that are all missing their files will be told
    channels, named = tuple(name for name in others if name not in about), [name for name in header if name]
    if "id" not in header or not channels or len(set(named)) < len(named):
        raise DataError(
            f"'{path}' needs a column 'id', one per channel such as 'image', and no name twice; it has: {few(columns, 8)}"
        )
    cases = tuple(_case(cells, channels, about, path, line) for line, cells in rows)
    return Dataset(path.stem, "CSV manifest", cases, None, () if channels == ("image",) else channels, path.parent)


def about_cases(path: Path) -> dict[str, dict[str, str]]:
    """What a table with a column `id` says of each case, by column; it need not name scans.

    Raises:
        DataError: it is no such table, or says two things of a case.
    """
    _, header, rows = _table(path)
    if "id" not in header:
        raise DataError(f"'{path}' needs a column 'id'; it has: {few(header, 8)}")
    about: dict[str, dict[str, str]] = {}
    for line, cells in rows:
        told = {name: cells[name] for name in header if name and name != "id"}
        if about.setdefault(cells["id"], told) != told:
            raise DataError(
                f"'{path}', line {line}: '{cells['id']}' stood there with other words. Keep one row per case."
            )
    return about


def _table(path: Path) -> tuple[list[str], list[str], list[tuple[int, dict[str, str]]]]:
    """The heading as it is written and as it is meant, and the cells of each row with the number of its line."""
    (_, columns), *rows = _rows(path) or [(1, [])]
    header = [name.lower() if name.lower() in _COLUMNS else name for name in columns]
    if "label" not in header:
        header = ["label" if name.lower() in _MASKS else name for name in header]
    if "group" not in header:
        header = ["group" if re.sub("[ _-]", "", name.lower()) in _PATIENTS else name for name in header]
    return columns, header, [(line, dict(zip_longest(header, row, fillvalue=""))) for line, row in rows if any(row)]


def _names_scans(root: Path, cells: Sequence[str]) -> bool:
    """Whether a column holds files or folders: something ends like a scan, or is there."""
    return not any(cells) or any(cell.lower().endswith(SUFFIXES) or (root / cell).exists() for cell in cells if cell)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each row without blanks around them, and the number of its last line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=text.partition("\n")[0].count), strict=True)
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not in UTF-8. Save it anew; spreadsheets call that 'CSV UTF-8'.") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"'{path}' is not readable as a table: {error}") from error


def _case(cells: Mapping[str, str], channels: tuple[str, ...], about: tuple[str, ...], path: Path, line: int) -> Case:
    if cells.get(""):
        raise DataError(f"'{path}', line {line} has more cells than there are columns: {few(filter(None, cells), 8)}.")
    if not all(cells[name] for name in ("id", *channels)):
        raise DataError(f"'{path}', line {line}: expected {few(cells, 8)}; got {few(cells.values(), 8)}")
    if (split := cells.get("split", "").lower()) not in SPLITS:
        raise DataError(f"'{path}', line {line}: split must be train, validation, test or empty, got '{split}'")
    label = path.parent / cells["label"] if cells.get("label") else None
    images = tuple(path.parent / cells[name] for name in channels)
    known = {name: cells[name] for name in (*about, "group", "split") if name in cells}
    return Case(cells["id"], images, label, cells.get("group", ""), SPLITS[split], known)
