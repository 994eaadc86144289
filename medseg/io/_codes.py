"""Coded names of structures: from `codes.csv` beside this file, from a table of the user's own, or from a label itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medseg import tables
from medseg.errors import DataError
from medseg.labels import Label, laterality

COLUMNS = ("name", "category", "code", "meaning")
_SHIPPED = Path(__file__).with_name("codes.csv")


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
    found, (bare, side) = known.get(_key(label.name)), laterality.split(label.name)
    if not found and side and bare in known:
        found = known[bare]._replace(side=_LATERALITY[side])
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
    found = {}
    for row in tables.read(path):
        cells = [(row.get(name) or "").strip() for name in COLUMNS]
        name, category, code, meaning = cells
        scheme, _, value = code.partition(":")
        if not all(cells) or category not in CATEGORIES or not value or len(value) > 16 or len(meaning) > 64:
            raise DataError(
                f"'{path}': expected {', '.join(COLUMNS)} such as liver, structure, SCT:10200004, Liver "
                f"(categories: {', '.join(CATEGORIES)}); got '{', '.join(cells)}'"
            )
        found[_key(name)] = Coded(CATEGORIES[category], Code(scheme, value, meaning))
    return found


def _key(name: str) -> str:
    return " ".join(laterality.words(name))


def _spelt(code: Code) -> str:
    return f"{code.scheme}:{code.value}"
