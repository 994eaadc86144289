"""A dense CRF behind the network: a whole map of logits is refined on the network's grid, tile by tile, and goes on as slabs.

Every voxel of a CRF talks to every other, so that the logits of all of a scan are held here, 4 bytes x classes a voxel. What the
messages take, some hundred bytes a voxel, is held for one tile; a scan that fits into one is refined as by `refine` at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from medseg.arrays import Array
from medseg.crf.dense_crf import Config, refine
from medseg.errors import ConfigError
from medseg.geometry import region
from medseg.inference.outputs import Blank
from medseg.inference.prediction import PreparedScan
from medseg.inference.sliding import Slab, Slabs
from medseg.inference.stitching import Range, divided
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

TILE_BYTES = 2 << 30
_VOXEL_BYTES, _CLASS_BYTES = 500, 100  # that messages take for each voxel, and for each of its classes: measured
_REACH = 3.0  # standard deviations, beyond which a Gaussian is next to nothing
_SURE = 1 - 1e-3
_LEAST = 1e-7  # of a probability, as in `dense_crf`


def check(labels: Labels) -> None:
    """Check that a CRF can follow a model.

    Raises:
        ConfigError: its labels overlap.
    """
    if not labels.exclusive:
        raise ConfigError(
            "crf: expected a model whose labels exclude each other; this one's are regions that overlap. Leave crf out."
        )


def refined(slabs: Slabs, scan: PreparedScan, classes: int, config: Config, blank: Blank) -> Slabs:
    """The same slabs, with logits of refined probabilities.

    A tile in which background is sure everywhere stays as it is: messages between voxels of one class change no label.

    Args:
        slabs: logits of exclusive classes; channels behind those stay as they are.
        scan: the scan, with the image that the network saw.
        classes: of the network.
        config: ranges in mm, and in values of that image.
        blank: makes arrays of zeros, from shape and type, of the size of the image.
    """

    def opened(wanted: Sequence[Range]) -> Iterator[Slab]:
        held, (parts, reach) = _collected(slabs, scan, blank), _tiling(scan.grid, classes, config)
        (low, high), *across = wanted
        rows, *others = (divided(n, count) for n, count in zip(scan.grid.shape, parts, strict=True))
        for first, stop in rows:
            logits = np.array(held[:, first:stop])
            for j, k in itertools.product(*others):
                inner = [slice(first, stop), slice(*j), slice(*k)]
                logits[:classes, :, inner[1], inner[2]] = _tile(held[:classes], scan, inner, reach, config)
            kept = logits[:, max(0, low - first) : max(0, high - first), slice(*across[0]), slice(*across[1])]
            if kept.size:
                yield Slab(max(first, low), 0, torch.from_numpy(kept))

    return opened


def _collected(slabs: Slabs, scan: PreparedScan, blank: Blank) -> Array:
    """All logits, in one array."""
    held: Array | None = None
    for slab in slabs([(0, n) for n in scan.grid.shape]):
        if held is None:
            held = blank((len(slab.logits), *scan.grid.shape), np.float32)
        np.moveaxis(held, slab.axis + 1, 1)[:, slab.start : slab.stop] = slab.logits.movedim(slab.axis + 1, 1).cpu()
    assert held is not None
    return held


def _tiling(grid: Geometry, classes: int, config: Config) -> tuple[list[int], list[int]]:
    """Into how many parts each axis is divided, and how many voxels around its own a tile sees.

    No side is divided below what the tile sees beyond it: most voxels would be refined several times.
    """
    reach_mm = _REACH * max(config.theta_alpha if config.w1 else 0.0, config.theta_gamma if config.w2 else 0.0)
    reach = [math.ceil(reach_mm / spacing) for spacing in grid.spacing_mm]
    most, parts = TILE_BYTES / (_VOXEL_BYTES + _CLASS_BYTES * classes), [1, 1, 1]
    while True:
        sides = [math.ceil(n / count) for n, count in zip(grid.shape, parts, strict=True)]
        seen = [min(n, side + 2 * r) for n, side, r in zip(grid.shape, sides, reach, strict=True)]
        useful = [a for a in range(3) if sides[a] > max(1, reach[a]) and grid.shape[a] > 3 * reach[a]]
        if math.prod(seen) <= most or not useful:
            return parts, reach
        parts[max(useful, key=lambda a: sides[a] / max(1, reach[a]))] += 1


def _tile(held: Array, scan: PreparedScan, inner: Sequence[slice], reach: Sequence[int], config: Config) -> Array:
    """Refined logits of a tile, `(classes, I, J, K)`."""
    outer = [
        slice(max(0, s.start - r), min(n, s.stop + r)) for s, r, n in zip(inner, reach, scan.grid.shape, strict=True)
    ]
    i, j, k = outer
    logits, grid = held[:, i, j, k], region.part(scan.grid, (i, j, k))
    likely = torch.tensor(logits).softmax(0).numpy()
    own = [slice(s.start - o.start, s.stop - o.start) for s, o in zip(inner, outer, strict=True)]
    if likely[0].min() > _SURE:
        return np.asarray(logits[:, *own])
    found = refine(Volume(likely, grid), Volume(scan.image[:, i, j, k].numpy(), grid), config)
    return np.log(np.maximum(found.array[:, *own], _LEAST))
