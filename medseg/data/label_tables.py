"""The tables beside predicted masks: volumes, and names and colours of the labels for viewers."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medseg import files
from medseg.labels import Labels


class VolumeTable:
    """The table of volumes; rows of other scans are kept where the table that is there has the same columns.

    Args:
        path: of the CSV.
        labels: a column each, in ml.
        merge: keep what is there.
    """

    def __init__(self, path: Path, labels: Labels, *, merge: bool) -> None:
        self.path, self.names = path, labels.names
        self.columns = ["case", *(f"{name}_ml" for name in labels.names), "note", "error"]
        self.merge, self.rows = merge, dict[str, list[str]]()

    def _known(self) -> Iterator[tuple[str, list[str]]]:
        """Case and row of a table that was written before; none of one with other columns."""
        if self.path.is_file():
            with self.path.open(encoding="utf-8", errors="replace", newline="") as stream:
                table = csv.reader(stream)
                if next(table, None) == self.columns:
                    yield from ((row[0], row) for row in table if len(row) == len(self.columns))

    def add(self, name: str, volumes_ml: Mapping[str, float] | None, notes: Sequence[str], error: str) -> None:
        """The row of a scan, in place of an older one."""
        found = volumes_ml or {}
        measured = (f"{found[label]:.4f}" if label in found else "" for label in self.names)
        self.rows[name] = [name, *measured, "; ".join(notes), error]

    def write(self) -> None:
        """Write the table whole, with what other processes have written into it meanwhile."""
        rows = dict(self._known()) | self.rows if self.merge else self.rows
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *rows.values()])
        files.write_text(self.path, text.getvalue())


def write_labels(folder: Path, prefix: str, labels: Labels) -> None:
    """Names and colours of labels, as 3D Slicer and ITK-SNAP read them."""
    rows = [(value, item.name, *item.colour) for value, item in zip(labels.written, labels, strict=True)]
    words = _words(labels.names)
    slicer = "".join(f"{value} {word} {r} {g} {b} 255\n" for (value, _, r, g, b), word in zip(rows, words, strict=True))
    files.write_text(folder / f"{prefix}slicer.ctbl", f"0 background 0 0 0 0\n{slicer}")
    quoted = [(value, f"{r:5d} {g:4d} {b:4d}", name.replace('"', "'")) for value, name, r, g, b in rows]
    snap = "".join(f'{value:5d} {rgb} 1 1 1 "{name}"\n' for value, rgb, name in quoted)
    files.write_text(folder / f"{prefix}itksnap.txt", f'    0     0    0    0 0 0 0 "Clear Label"\n{snap}')


def _words(names: Sequence[str]) -> list[str]:
    """Each name as one word of its own: letters and digits of any script, with underscores for the rest."""
    words: list[str] = []
    for name in names:
        kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in ".-" else " " for c in name)
        word = "_".join(kept.split()) or "label"
        while word in words:
            word += "_"
        words.append(word)
    return words
