"""From what a dataset is to how it is learned: arithmetic on numbers, every choice with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.fingerprint import ChannelFacts, Fingerprint
from medseg.labels import Labels
from medseg.limits import Limits
from medseg.preprocess import Config as Preprocess
from medseg.volume import axes_of

Array = npt.NDArray[Any]
Size = tuple[int, ...]
Wanted = Sequence[float | None]
_BATCHES = {False: (2, 16), True: (4, 64)}  # fewest and most samples of a step: of volumes, of slices
_THICK = 3.0  # spacing beyond so many times the finest one is anisotropic
_SLAB = 4  # slices below which there is no volume to learn from
_HALVED = 5  # voxels that an axis needs to be halved once more
_SMALLEST_STRUCTURE = 200  # voxels that the smallest structure keeps when the grid is made coarser


class Choice(NamedTuple):
    """One setting, and why."""

    name: str
    value: Any
    reason: str


class _Grid(NamedTuple):
    """The training grid: directions of its axes, their order in RAS, spacing in mm, and the voxels on it of what is shown."""

    axcodes: str
    order: list[int]
    spacing: Array
    shape: Array
    flat: bool
    shown: str


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
    flat = dims == "2" or (dims == "auto" and min(found.shape) < _SLAB)
    grid, prepared = _followed(found, given, flat) if given else _chosen(found, limits, flat, spacing_mm, orientation)
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


def _chosen(
    found: Fingerprint, limits: Limits, flat: bool, wanted: Wanted, orientation: str | None
) -> tuple[_Grid, tuple[Choice, ...]]:
    """A grid and intensities for these data."""
    axcodes = orientation or _orientation(found, flat)
    order = axes_of(axcodes)
    spacing, why_spacing = _spacing(found, order, limits, flat)
    spacing = np.array([w or s for w, s in zip(wanted, spacing, strict=True)])
    why_axcodes = "slices lie across the last axis" if flat else "one orientation for all scans"
    why_intensity = "; ".join(f"{c.name}: {c.in_hu[1]}" for c in found.channels)
    return _on_grid(found, axcodes, order, spacing, flat), (
        Choice("preprocess.orientation", axcodes, why_axcodes),
        Choice("preprocess.spacing_mm", tuple(float(s) for s in spacing), why_spacing),
        Choice("preprocess.intensity", tuple(_intensity(c) for c in found.channels), why_intensity),
    )


def _followed(found: Fingerprint, given: Preprocess, flat: bool) -> tuple[_Grid, tuple[Choice, ...]]:
    """The grid and the intensities of a stored model."""
    order = axes_of(given.orientation)
    spacing = np.array([s or found.spacing_mm[axis] for s, axis in zip(given.spacing_mm, order, strict=True)])
    why = "as the model was trained from which the run sets out"
    choices = (Choice(f"preprocess.{name}", value, why) for name, value in given.model_dump().items())
    return _on_grid(found, given.orientation, order, spacing, flat), tuple(choices)


def _on_grid(found: Fingerprint, axcodes: str, order: list[int], spacing: Array, flat: bool) -> _Grid:
    shape = np.maximum(1, np.round(np.array(found.shape)[order] * np.array(found.spacing_mm)[order] / spacing))
    return _Grid(axcodes, order, spacing, shape, flat, found.shown)


def _patches(patch: Size, grid: _Grid, limits: Limits) -> tuple[Choice, ...]:
    batch = int(np.clip(limits.step_voxels // np.prod(patch), *_BATCHES[grid.flat]))
    scan, each = ("x".join(str(int(n)) for n in size) for size in (grid.shape, patch))
    why = f"the median {grid.shown} has {scan} voxels on this grid; device and clock afford patches of {_count(limits.patch(grid.flat))}"
    return (
        Choice("sample.patch", patch, why),
        Choice("train.batch", batch, f"{_count(limits.step_voxels)} voxels a step, in patches of {each}"),
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


def _augmentation(found: Fingerprint, labels: Labels, grid: _Grid) -> tuple[Choice, ...]:
    sides = labels.sides()
    across = next(n for n, code in enumerate(grid.axcodes) if code in "RL")
    axes = tuple(n for n in range(2 if grid.flat else 3) if not (sides and n == across))
    bias_p = 0.0 if all(c.in_hu[0] for c in found.channels) else 0.1
    return (
        Choice("augment.mirror_axes", axes, _why_mirror(labels, sides)),
        Choice("augment.bias_p", bias_p, "a coil's bias field is in MR, not in CT"),
        Choice("inference.mirror_axes", axes, "the flips that training showed"),
    )


def _orientation(found: Fingerprint, flat: bool) -> str:
    """RAS; slices of a 2D model lie across the axis that has next to no slices, else the thickest one, which comes last."""
    order = [0, 1, 2]
    if flat:
        few = min(found.shape) < _SLAB
        across = int(np.argmin(found.shape)) if few else 2 - int(np.argmax(found.spacing_mm[::-1]))
        order = [n for n in order if n != across] + [across]
    return "".join("RAS"[n] for n in order)


def _spacing(found: Fingerprint, order: list[int], limits: Limits, flat: bool) -> tuple[Array, str]:
    spacing = np.array(found.spacing_mm)[order]
    reason = "median of the training cases"
    thick = spacing > _THICK * spacing.min()
    if thick.any() and not flat:
        spacing[thick] = np.maximum(np.array(found.thick_spacing_mm)[order][thick], spacing.min())
        reason = f"median; along {_letters(order, thick)}, more than {_THICK:g} times coarser, the 10th percentile"
    voxels = float(np.prod(np.array(found.shape)[order] * np.array(found.spacing_mm)[order] / spacing))
    if flat:
        voxels /= found.shape[order[2]]
    smallest_ml = min(found.label_ml.values(), default=math.inf)
    # Cells of this edge leave the smallest structure its voxels.
    coarsest = (smallest_ml * 1000 / _SMALLEST_STRUCTURE) ** (1 / 3)
    wanted = voxels / limits.case_voxels
    if wanted > 1 and coarsest > spacing.min():
        coarse, finest = _coarsened(spacing, wanted, coarsest, flat), spacing
        if not np.allclose(coarse, finest):
            reason += f", coarsened because the median {found.shown} would have {_count(voxels)} voxels; the smallest structure keeps {_SMALLEST_STRUCTURE}"
            spacing = coarse
    return np.array([float(f"{s:.5g}") for s in spacing]), reason


def _coarsened(spacing: Array, wanted: float, coarsest: float, flat: bool) -> Array:
    """The finest axes coarsened together until the grid has `wanted` times fewer voxels, or reaches `coarsest`."""
    free = 2 if flat else 3
    level = spacing.min()
    while np.prod(np.maximum(spacing[:free], level) / spacing[:free]) < wanted and level < coarsest:
        level *= 1.05
    result = np.maximum(spacing, min(level, coarsest))
    return np.array([*result[:free], *spacing[free:]])


def _letters(order: list[int], which: Array) -> str:
    return ", ".join("RAS"[n] for n, w in zip(order, which, strict=True) if w)


def _patch(grid: _Grid, limits: Limits) -> Array:
    """As much of the median scan as the limit allows, shortened along the longest physical axis first."""
    size, spacing = grid.shape.astype(float), grid.spacing
    if grid.flat:
        size[2] = 1
    while np.prod(size) > limits.patch(grid.flat):
        extent = np.where(size > 1, size * np.minimum(spacing, _THICK * spacing.min()), 0)
        size[int(extent.argmax())] *= 0.97
    return np.maximum(1, np.round(size))


def _stages(patch: Array, grid: _Grid, limits: Limits) -> tuple[list[Size], list[Size]]:
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


def _intensity(channel: ChannelFacts) -> dict[str, Any]:
    if not channel.in_hu[0]:
        return {"kind": "z_score"}
    values = {"low": channel.low, "high": channel.high, "mean": channel.mean, "std": max(channel.std, 1e-3)}
    return {"kind": "clip"} | {name: float(f"{value:.6g}") for name, value in values.items()}


def _why_mirror(labels: Labels, sides: Sequence[tuple[int, int]]) -> str:
    if not sides:
        return "no label names a side"
    a, b = (labels.names[n] for n in sides[0])
    return f"'{a}' and '{b}' are a left and a right: no flips from left to right"


def _count(voxels: float) -> str:
    return f"{voxels / 1e6:.2g} million" if voxels >= 1e6 else f"{voxels / 1e3:.3g} thousand"


def nested(choices: Sequence[Choice]) -> dict[str, Any]:
    """Choices as nested mappings: `{"sample": {"patch": ...}, ...}`."""
    tree: dict[str, Any] = {}
    for choice in choices:
        *path, last = choice.name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = choice.value
    return tree
