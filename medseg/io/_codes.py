"""Coded names of structures: from `codes.csv` beside this file, from a table of the user's own, or from a label itself."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medseg.errors import DataError
from medseg.labels import Label

COLUMNS = ("name", "category", "code", "meaning")
_SHIPPED = Path(__file__).with_name("codes.csv")
_SIDES = {"left": "left", "l": "left", "lt": "left", "right": "right", "r": "right", "rt": "right"}


class Code(NamedTuple):
    """A coded concept, such as `SCT`, `10200004`, `Liver`."""

    scheme: str
    value: str
    meaning: str


# DICOM PS3.16, CID 7150 (Segmentation Property Categories) and CID 244 (Laterality).
CATEGORIES = {
    "structure": Code("SCT", "91723000", "Anatomical Structure"),
    "tissue": Code("SCT", "85756007", "Tissue"),
    "abnormal": Code("SCT", "49755003", "Morphologically Abnormal Structure"),
}
_LATERALITY = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}


class Coded(NamedTuple):
    """What a structure is: its category, the thing itself, and the side it is on if its name says so."""

    category: Code
    kind: Code
    side: Code | None = None


Table = Mapping[str, Coded]


def coded(label: Label, known: Table) -> Coded:
    """The codes of a label: its own code, or that of its name, or of its name without the side; else it is some tissue."""
    words = _words(label.name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    found = known.get(" ".join(words))
    if not found and len(sides) == 1:
        bare = known.get(" ".join(word for word in words if word not in _SIDES))
        found = bare and bare._replace(side=_LATERALITY[sides.pop()])
    if label.code and ":" in label.code and (not found or _spelt(found.kind) != label.code):
        scheme, _, value = label.code.partition(":")
        twin = next((entry for entry in known.values() if _spelt(entry.kind) == label.code), None)
        return twin or Coded(CATEGORIES["structure"], Code(scheme, value, label.name[:64]))
    return found or Coded(CATEGORIES["tissue"], CATEGORIES["tissue"])


def table(path: str | Path | None = None) -> Table:
    """The shipped codes by name, and over them those of a user's own table.

    Args:
        path: a CSV with the columns `name`, `category` (structure, tissue, abnormal), `code` (`SCT:10200004`), `meaning`.

    Raises:
        DataError: it is no such table.
    """
    return {**_read(_SHIPPED), **(_read(Path(path)) if path else {})}


def _read(path: Path) -> dict[str, Coded]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table of codes '{path}' cannot be read: {error}") from error
    found = {}
    for line, row in enumerate(rows, 2):
        cells = [(row.get(name) or "").strip() for name in COLUMNS]
        name, category, code, meaning = cells
        scheme, _, value = code.partition(":")
        if not all(cells) or category not in CATEGORIES or not value or len(value) > 16 or len(meaning) > 64:
            raise DataError(
                f"'{path}', line {line}: expected {', '.join(COLUMNS)} such as liver, structure, SCT:10200004, Liver "
                f"(categories: {', '.join(CATEGORIES)}); got {', '.join(cells)}"
            )
        found[" ".join(_words(name))] = Coded(CATEGORIES[category], Code(scheme, value, meaning))
    return found


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower())


def _spelt(code: Code) -> str:
    return f"{code.scheme}:{code.value}"
