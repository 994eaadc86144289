"""From what a dataset is to how it is learned: arithmetic on numbers, every choice with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from medseg.arrays import Array
from medseg.labels import Labels
from medseg.planning.choices import Choice
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.limits import Limits
from medseg.planning.training_grid import SLAB, THICK, Grid, Wanted, chosen, followed, in_words
from medseg.preprocess import Config as Preprocess

Size = tuple[int, ...]
_BATCHES = {False: (2, 16), True: (4, 64)}  # fewest and most samples of a step: of volumes, of slices
_HALVED = 5  # voxels that an axis needs to be halved once more


def plan(
    found: Fingerprint,
    labels: Labels,
    limits: Limits,
    dims: Literal["auto", "2", "3"] = "auto",
    given: Preprocess | None = None,
    spacing_mm: Wanted = (None, None, None),
    orientation: str | None = None,
) -> tuple[Choice, ...]:
    """Choose every setting that depends on the data. Deterministic: the same numbers give the same plan.

    Args:
        found: what the training cases are like.
        labels: their structures.
        limits: what device and clock afford.
        dims: "2" learns slices, "3" volumes; "auto" learns slices only where there is nothing else.
        given: the preparation that a stored model asks for, from which the run sets out; None to choose one.
        spacing_mm: that is wanted along the axes of the grid; None to choose it.
        orientation: that is wanted; None to choose it.
    """
    flat = dims == "2" or (dims == "auto" and min(found.shape) < SLAB)
    grid, prepared = followed(found, given, flat) if given else chosen(found, limits, flat, spacing_mm, orientation)
    size = _patch(grid, limits)
    strides, kernels = _stages(size, grid, limits)
    patch = _rounded(size, strides)
    return (
        *prepared,
        *_patches(patch, grid, limits),
        *_network(strides, kernels, limits),
        *_augmentation(found, labels, grid),
        Choice("inference.window", patch, "as trained"),
    )


def _patches(patch: Size, grid: Grid, limits: Limits) -> tuple[Choice, ...]:
    batch = int(np.clip(limits.step_voxels // np.prod(patch), *_BATCHES[grid.flat]))
    scan, each = ("x".join(str(int(n)) for n in size) for size in (grid.shape, patch))
    why = f"the median {grid.shown} has {scan} voxels on this grid; device and clock afford patches of {in_words(limits.patch(grid.flat))}"
    return (
        Choice("sample.patch", patch, why),
        Choice("train.batch", batch, f"{in_words(limits.step_voxels)} voxels a step, in patches of {each}"),
    )


def _network(strides: Sequence[Size], kernels: Sequence[Size], limits: Limits) -> tuple[Choice, ...]:
    half = "the first stage at half resolution, where a CPU learns several times more a second"
    start = half if limits.first_stride == 2 else "the first stage at full resolution"
    why_strides = f"{start}; each axis is halved while it has {_HALVED} voxels, thick ones later"
    widths = tuple(min(limits.width * 2**n, limits.widest) for n in range(len(strides)))
    why_kernels = "3 along axes whose spacing is within twice the finest, 1 along thicker ones"
    return (
        Choice("model.strides", tuple(strides), why_strides),
        Choice("model.kernels", tuple(kernels), why_kernels),
        Choice("model.widths", widths, f"{limits.width} channels at first on this device, doubled with each stage"),
        Choice("model.blocks", (1,) * len(strides), "one residual unit a stage"),
    )


def _augmentation(found: Fingerprint, labels: Labels, grid: Grid) -> tuple[Choice, ...]:
    sides = labels.sides()
    across = next(n for n, code in enumerate(grid.axcodes) if code in "RL")
    axes = tuple(n for n in range(2 if grid.flat else 3) if not (sides and n == across))
    bias_p = 0.0 if all(c.in_hu[0] for c in found.channels) else 0.1
    return (
        Choice("augment.mirror_axes", axes, _why_mirror(labels, sides)),
        Choice("augment.bias_p", bias_p, "a coil's bias field is in MR, not in CT"),
        Choice("inference.mirror_axes", axes, "the flips that training showed"),
    )


def _patch(grid: Grid, limits: Limits) -> Array:
    """As much of the median scan as the limit allows, shortened along the longest physical axis first."""
    size, spacing = grid.shape.astype(float), grid.spacing
    if grid.flat:
        size[2] = 1
    while np.prod(size) > limits.patch(grid.flat):
        extent = np.where(size > 1, size * np.minimum(spacing, THICK * spacing.min()), 0)
        size[int(extent.argmax())] *= 0.97
    return np.maximum(1, np.round(size))


def _stages(patch: Array, grid: Grid, limits: Limits) -> tuple[list[Size], list[Size]]:
    """Strides and kernels of each stage: axes are halved while they have enough voxels, finer ones before thicker ones."""
    dims = 2 if grid.flat else 3
    size, step = patch[:dims].copy(), grid.spacing[:dims].copy()
    strides: list[Size] = []
    kernels: list[Size] = []
    while len(strides) < 6:
        finest = step <= 2 * step.min()
        halved = finest & (size >= _HALVED) if strides or limits.first_stride == 2 else np.zeros(dims, bool)
        if strides and not halved.any():
            break
        size, step = np.where(halved, size / 2, size), np.where(halved, step * 2, step)
        strides.append(tuple(int(1 + h) for h in halved))
        kernels.append(tuple(3 if f else 1 for f in finest))
    if len(strides) == 1:  # tiny scans: a U needs two stages
        strides, kernels = [*strides, (1,) * dims], kernels * 2
    return strides, kernels


def _rounded(size: Array, strides: Sequence[Size]) -> Size:
    """Up to a multiple of 8 where the network halves that often: it takes any size, and ragged edges cost most there."""
    factor = [*np.minimum(np.prod(strides, axis=0), 8), 1][:3]
    return tuple(int(-(-p // f) * f) if p > 1 else 1 for p, f in zip(size, factor, strict=True))


def _why_mirror(labels: Labels, sides: Sequence[tuple[int, int]]) -> str:
    if not sides:
        return "no label names a side"
    a, b = (labels.names[n] for n in sides[0])
    return f"'{a}' and '{b}' are a left and a right: no flips from left to right"
