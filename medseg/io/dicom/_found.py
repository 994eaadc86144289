"""A volume that was found, and not yet read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medseg.io.dicom._grid import Stack
from medseg.io.dicom._planes import File


@dataclass(frozen=True)
class Found:
    """One volume that was found, and not yet read.

    Args:
        id: a hash of the SeriesInstanceUID, with `-2` for the second volume of its series and so on: nothing of the patient.
        path: what `medseg.read` takes for it: the file or the folder that holds nothing else, or that with `/ID.dicom` behind.
        file: the first of its files.
        stack: its planes in order, and their grid.
        label: what tells it from the other volumes of its series.
        problem: why it cannot be read; empty where it can.
    """

    id: str
    path: Path = field(repr=False)
    file: File = field(repr=False)
    stack: Stack = field(repr=False)
    label: str = ""
    problem: str = ""

    @property
    def refusal(self) -> str:
        """Why it is not read unless gaps are allowed; empty where it is."""
        return self.problem or self.stack.problem or self.stack.uneven
