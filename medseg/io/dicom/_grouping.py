"""Which planes are one volume: by place and orientation, and within these by what was measured and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.io.dicom._grid import SAME, Stack, arrange, places
from medseg.io.dicom._planes import CONTENT, TRAITS, Plane
from medseg.wording import counted

# By which volumes are sorted, and then by the order of their images.
_ORDER = (
    "echo",
    "echo time",
    "time",
    "phase",
    "cardiac phase",
    "respiratory phase",
    "reference time",
    "acquisition",
)
_CALCULATED = frozenset(("MIP", "MINIP", "MPR", "PROJECTION", "REFORMATTED"))  # words of image types
_COUNTED = "no tag tells its volumes apart: images in one place are counted in the order of InstanceNumber"


def volumes(planes: Sequence[Plane]) -> list[Stack]:
    """The volumes of one series, in the order in which they were taken; each says itself what is wrong with it.

    Planes that differ in orientation, pixel size, size, stack, frame of reference or study are of different volumes. So are several
    planes in one place: what tells them apart (echo, b-value, time ...) divides the series, if that leaves even stacks. Where
    no tag does, the nth image of each place, by InstanceNumber, is of the nth volume. An even stack is divided where what it
    shows changes by turns from slice to slice.
    """
    once, copies = _without_copies(planes)
    note = (
        (f"{counted(copies, 'image is', 'images are')} there twice, as copies of one file; one of each is used",)
        if copies
        else ()
    )
    groups = sorted(_alike(once), key=lambda group: min(plane.order for plane in group))
    found = [stack for group in groups for stack in sorted(_divided(group), key=_when)]
    return [replace(stack, notes=(*stack.notes, *note)) for stack in found]


def _without_copies(planes: Sequence[Plane]) -> tuple[list[Plane], int]:
    """Each image once: an export may hold a file twice. Files of one SOPInstanceUID and header are one image,
    if their values turn out to be equal when they are read.
    """
    known: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        name = plane.file.instance or plane.file.source
        known[name, plane.frame, plane.corner, plane.position, plane.axes, plane.traits, plane.order].append(plane)
    once = [replace(first, copies=tuple(copies)) if copies else first for first, *copies in known.values()]
    return once, len(planes) - len(once)


def _alike(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Planes of one size, study, frame of reference, pixel size and orientation, as far as text with few digits can tell."""
    groups: dict[Hashable, list[list[Plane]]] = defaultdict(list)
    for plane in planes:
        near = groups[
            plane.size, plane.study, plane.frame_of_reference, plane.stack, plane.position is None, _made(plane)
        ]
        for group in near:
            if _near(plane.axes, group[0].axes) and _near(plane.pixel_mm, group[0].pixel_mm):
                group.append(plane)
                break
        else:
            near.append([plane])
    return [group for near in groups.values() for group in near]


def _made(plane: Plane) -> frozenset[str]:
    """How a plane was calculated from others: a projection is no slice of the stack that it was made of, wherever it lies."""
    return _CALCULATED.intersection(part for word in plane.traits[0] or () for part in word.replace("_", " ").split())


def _near(a: Sequence[float] | None, b: Sequence[float] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a == b or max(abs(x - y) for x, y in zip(a, b, strict=True)) <= SAME


def _divided(planes: Sequence[Plane], start: int = 0) -> list[Stack]:
    """The stacks of a group: the division by traits from one on that leaves the fewest faults.

    Times and counters divide only what lies in one place twice: a scanner may number each turn of its table.
    """
    if any(plane.corner != (0, 0) for plane in planes):
        # Each mosaic is a volume. They need not lie in one place: scanners follow a head that moves.
        return [arrange(tiles) for tiles in _by(planes, [plane.file for plane in planes])]
    whole = arrange(planes)
    if not (whole.uneven or whole.problem):
        parts = _taking_turns(whole.planes)
        return [stack for part in parts for stack in _divided(part)] or [whole]
    if any(None in (p.position, p.axes, p.pixel_mm) for p in planes):
        return [whole]
    place = places(planes)
    count = int(place.max()) + 1
    options = [[whole]]
    for n in range(start, CONTENT if count == len(planes) else len(TRAITS)):
        parts = _by(planes, [plane.traits[n] for plane in planes])
        if 1 < len(parts) <= 2 * len(planes) / count:  # each fills half of the places in the mean, or it is no volume
            options.append([stack for part in parts for stack in _divided(part, n + 1)])
            if _faults(options[-1], count) == 0:
                return options[-1]
    return min([*options, *_counted(planes, place)], key=lambda stacks: _faults(stacks, count))


def _taking_turns(planes: Sequence[Plane]) -> list[list[Plane]]:
    """The parts of an even stack that show different things by turns, slice by slice: echoes, say, half a gap apart.

    Of MR acquisitions take turns within one volume, so that there only what a plane shows counts. What has more turns than
    slices in a part is no volume: an inversion time that differs from slice to slice may recur. None where nothing takes turns.
    """
    for n in range(CONTENT if planes[0].file.modality == "MR" else len(TRAITS)):
        keys = [plane.traits[n] for plane in planes]
        parts = _by(planes, keys)
        turn = len(parts)
        if turn > 1 and turn**2 <= len(planes) and keys[turn:] == keys[:-turn]:
            return parts
    return []


def _by(planes: Sequence[Plane], keys: Sequence[Hashable]) -> list[list[Plane]]:
    parts: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane, key in zip(planes, keys, strict=True):
        parts[key].append(plane)
    return list(parts.values())


def _counted(planes: Sequence[Plane], place: Array) -> list[list[Stack]]:
    """The division by InstanceNumber, where the images visit all of several places in turns, and no two have one number."""
    here: dict[int, list[Plane]] = defaultdict(list)
    for plane, number in sorted(zip(planes, place.tolist(), strict=True), key=lambda pair: pair[0].order):
        here[number].append(plane)
    count = len(here[0])
    if any(not count == len(images) == len({plane.order for plane in images}) for images in here.values()):
        return []
    if len(here) < 2 or not _in_turns(place[sorted(range(len(planes)), key=lambda n: planes[n].order)], len(here)):
        return []
    stacks = [arrange(nth) for nth in zip(*here.values(), strict=True)]
    return [[replace(stack, notes=(*stack.notes, _COUNTED)) for stack in stacks]]


def _in_turns(place: Array, count: int) -> bool:
    """Whether images visit `count` places in turns, and take equally many at each visit: volumes in any order would not."""
    each = len(place) // count
    turns = [place.reshape(-1, count, run) for run in range(1, each + 1) if each % run == 0]
    return any((turn == turn[:, :, :1]).all() and (np.sort(turn[:, :, 0]) == np.arange(count)).all() for turn in turns)


def _faults(stacks: Sequence[Stack], count: int) -> float:
    """How wrong a division of planes in `count` places is: a stack without a grid, or a lone plane, weighs more than a gap."""
    return sum(10 * _broken(stack, count) + bool(stack.uneven) for stack in stacks) / len(stacks)


def _broken(stack: Stack, count: int) -> bool:
    twice = len(set(stack.at)) < len(stack.at)
    return bool(stack.problem) or twice or (len(stack.planes) == 1 and count > 1)


def _when(stack: Stack) -> tuple[Any, ...]:
    first = min(stack.planes, key=lambda plane: plane.order)
    values = dict(zip((trait.name for trait in TRAITS), first.traits, strict=True))
    numbers = [values[name] if isinstance(values[name], float) else 0.0 for name in _ORDER]
    return (*numbers, values["dimension"] or (), first.order, values["acquired"] or ())
