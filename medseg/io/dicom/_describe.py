"""Volumes in words: nothing that people typed into a scanner, for they type names; numbers and coded terms alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.io.dicom._found import Found
from medseg.io.dicom._grid import Stack
from medseg.io.dicom._planes import TRAITS

_KINDS = {  # terms of image types that tell what is shown, and how they are said
    "M": "magnitude",
    "MAGNITUDE": "magnitude",
    "P": "phase",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "R": "real",
    "REAL": "real",
    "I": "imaginary",
    "IMAGINARY": "imaginary",
    "MIXED": "mixed",
    "ADC": "ADC",
    "TRACEW": "trace",
    "FA": "FA",
    "W": "water",
    "WATER": "water",
    "F": "fat",
    "FAT": "fat",
    "IP": "in phase",
    "IN_PHASE": "in phase",
    "OP": "opposed phase",
    "OUT_PHASE": "opposed phase",
    "DERIVED": "derived",
    "MPR": "reformatted",
    "MIP": "maximum projection",
}
_COLUMNS = ("series", "id", "modality", "voxels", "mm", "axes", "what")


def labels(stacks: Sequence[Stack]) -> list[str]:
    """What tells the volumes of one series apart; nothing where there is one."""
    if len(stacks) < 2:
        return ["" for _ in stacks]
    found = [traits(stack) for stack in stacks]
    telling = [t.name for t in TRAITS if len({str(values.get(t.name)) for values in found}) > 1]
    units = {trait.name: trait.unit for trait in TRAITS}
    words = ([_said(name, values[name], units[name]) for name in telling if name in values] for values in found)
    return [", ".join(filter(None, [f"{n} of {len(stacks)}", *said])) for n, said in enumerate(words, 1)]


def traits(stack: Stack) -> dict[str, Any]:
    """The traits that all planes of a volume share, by name; kinds as words of a closed list."""
    shared = {}
    for trait, values in zip(TRAITS, zip(*(plane.traits for plane in stack.planes), strict=True), strict=False):
        if values[0] is not None and all(value == values[0] for value in values):
            shared[trait.name] = _kind(values[0]) if trait.name == "kind" else values[0]
    return {name: value for name, value in shared.items() if name == "kind" or _is_number(value)}


def _is_number(value: Any) -> bool:
    """Whether this is a number or several: texts, as names of kernels, can be typed."""
    return all(isinstance(part, float) for part in value) if isinstance(value, tuple) else isinstance(value, float)


def _kind(words: Sequence[str]) -> str:
    return " ".join(dict.fromkeys(_KINDS[word] for word in words if word in _KINDS))


def _said(name: str, value: Any, unit: str) -> str:
    if name == "kind":
        return str(value)
    numbers = "/".join(f"{part:.4g}" for part in value) if isinstance(value, tuple) else f"{value:.6g}"
    return f"{name} {numbers} {unit}".strip()


def table(volumes: Sequence[Found], aside: Mapping[str, int], damaged: Sequence[str]) -> str:
    """A line a volume in columns of plain text, then what was set aside and what is damaged."""
    rows = [_COLUMNS, *(_row(found) for found in volumes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]
    more = [f"set aside: {counted(aside)}"] if aside else []
    return "\n".join([*(lines if volumes else ["no volumes"]), *more, *damaged])


def counted(aside: Mapping[str, int]) -> str:
    """What was set aside, in words."""
    return ", ".join(f"{count} x {what}" for what, count in sorted(aside.items()))


def _row(found: Found) -> tuple[str, ...]:
    grid = found.stack.grid
    size = "x".join(map(str, grid.shape)) if grid else "-"
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing_mm) if grid else "-"
    number = "-" if found.file.number is None else str(found.file.number)
    refused = f"refused: {found.refusal}" if found.refusal else ""
    words = "; ".join(filter(None, [found.label, *found.stack.notes, refused]))
    return number, found.id, modality(found), size, spacing, grid.axcodes if grid else "-", words


def modality(found: Found) -> str:
    """Its two or so letters; nothing longer, which would be no code."""
    name = found.file.modality
    return name if len(name) <= 4 and name.isalnum() and name.isupper() else "-"


def one_line(volumes: Sequence[Found], shown: int = 4) -> str:
    """The first volumes of several, for an error."""
    words = [f"{f.id} ({', '.join(filter(None, [modality(f), *_row(f)[3:4], f.label]))})" for f in volumes[:shown]]
    more = f" and {len(volumes) - shown} more" if len(volumes) > shown else ""
    return "; ".join(words) + more
