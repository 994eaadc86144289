"""Where to cut training patches, so that they reach every structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from medseg.arrays import Array
from medseg.settings import Settings

Size = tuple[int, int, int]


class Config(Settings):
    """How training patches are drawn.

    Args:
        patch: voxels along i, j and k; the last is 1 for 2D models.
        foreground: share of patches that are drawn to hold a structure, 0 to 1.
    """

    patch: tuple[PositiveInt, PositiveInt, PositiveInt]
    foreground: float = Field(default=0.5, ge=0, le=1)


class Cut(NamedTuple):
    """One patch: the number of the case, and the first index, which is negative where the patch sticks out."""

    case: int
    start_ijk: Size


@dataclass(frozen=True)
class Sampler:
    """Draws patches: the same ones for the same seed, whatever the number of workers and their order.

    Args:
        shapes: of each case, (I, J, K) voxels.
        points: of each case, voxels `(N, 3)` of every class that occurs in it (`points_by_class`). Classes without
            points are never asked for; without any points at all every patch lies anywhere.
        config: patch and share of foreground.
        seed: of the run.
    """

    shapes: Sequence[Size]
    points: Sequence[Mapping[int, Array]]
    config: Config
    seed: int = 0

    @cached_property
    def _holders(self) -> list[tuple[int, list[int]]]:
        """Every class that occurs, with the cases that have it."""
        classes = sorted({c for of_case in self.points for c, points in of_case.items() if len(points)})
        return [(c, [n for n, of_case in enumerate(self.points) if len(of_case.get(c, ()))]) for c in classes]

    def draw(self, step: int, index: int) -> Cut:
        """The patch of one sample of one step.

        A foreground patch draws a class, then a case that has it, then a point of it, all uniformly: a structure seen in
        one case is drawn as often as one seen in all. The point lies anywhere in the central half of the patch, unless
        that would push the patch over the edge of the scan. Other patches draw a case and lie anywhere.

        Patches stay inside the scan; along an axis where the scan is shorter than the patch, the scan stays inside the
        patch, anywhere.
        """
        rng = np.random.default_rng((self.seed, step, index))
        point: Array | None = None
        if self._holders and rng.random() < self.config.foreground:
            wanted, cases = self._holders[rng.integers(len(self._holders))]
            case = cases[rng.integers(len(cases))]
            point = self.points[case][wanted][rng.integers(len(self.points[case][wanted]))]
        else:
            case = int(rng.integers(len(self.shapes)))
        patch = np.array(self.config.patch)
        slack = np.array(self.shapes[case]) - patch
        start = rng.integers(np.minimum(slack, 0), np.maximum(slack, 0) + 1)
        if point is not None:
            near = point - rng.integers(patch // 4, patch - patch // 4)
            start = np.where(slack > 0, np.clip(near, 0, slack.clip(0)), start)
        i, j, k = (int(n) for n in start)
        return Cut(case, (i, j, k))


def points_by_class(classes: Array, n_max: int = 2000, seed: int = 0) -> dict[int, Array]:
    """Voxels of every structure of a case, for `Sampler`.

    Args:
        classes: `(1, I, J, K)` class numbers, or `(C, I, J, K)` 0/1 with one channel for each overlapping label. 0 is
            background and negative numbers are ignored.
        n_max: keep at most so many voxels of a class, chosen at random.
        seed: of that choice.

    Returns:
        class -> `(N, 3)` int32 indices; channel c of overlapping labels is class c + 1. Absent classes have no entry.
    """
    rng = np.random.default_rng(seed)
    found: dict[int, Array] = {}
    for channel, mask in enumerate(classes):
        flat = np.flatnonzero(mask > 0)
        values = mask.reshape(-1)[flat]
        for value in np.unique(values):
            of_class = flat[values == value]
            if len(of_class) > n_max:
                of_class = np.sort(rng.choice(of_class, n_max, replace=False))
            key = int(value) if len(classes) == 1 else channel + 1
            found[key] = np.stack(np.unravel_index(of_class, mask.shape), -1).astype(np.int32)
    return found


def cut(array: Any, start_ijk: Size, box: Any) -> None:
    """Fill a box with what an array holds there, and with 0 outside; reads no more, so that a memory map stays on disk.

    Args:
        array: `(C, I, J, K)`, an array or a tensor.
        start_ijk: its voxel that comes first in the box, negative to begin outside.
        box: `(C, *size)` of the same kind, where the result goes.
    """
    sizes = box.shape[1:]
    spans = [(max(0, s), min(n, s + w)) for s, w, n in zip(start_ijk, sizes, array.shape[1:], strict=True)]
    if any(high - low < w for (low, high), w in zip(spans, sizes, strict=True)):
        box[...] = 0
    if all(low < high for low, high in spans):
        into = tuple(slice(low - s, high - s) for (low, high), s in zip(spans, start_ijk, strict=True))
        box[(slice(None), *into)] = array[(slice(None), *(slice(low, high) for low, high in spans))]
