"""The grid on which a network learns, and the values on it: orientation, spacing, intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg.arrays import Array
from medseg.planning.choices import Choice
from medseg.planning.fingerprint import ChannelFacts, Fingerprint
from medseg.planning.limits import Limits
from medseg.preprocess import Config as Preprocess
from medseg.volume import axes_of

Wanted = Sequence[float | None]
THICK = 3.0  # spacing beyond so many times the finest one is anisotropic
SLAB = 4  # slices below which there is no volume to learn from
_SMALLEST_STRUCTURE = 200  # voxels that the smallest structure keeps when the grid is made coarser


class Grid(NamedTuple):
    """The training grid: directions of its axes, their order in RAS, spacing in mm, and the voxels on it of what is shown."""

    axcodes: str
    order: list[int]
    spacing: Array
    shape: Array
    flat: bool
    shown: str


def chosen(
    found: Fingerprint, limits: Limits, flat: bool, wanted: Wanted, orientation: str | None
) -> tuple[Grid, tuple[Choice, ...]]:
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


def followed(found: Fingerprint, given: Preprocess, flat: bool) -> tuple[Grid, tuple[Choice, ...]]:
    """The grid and the intensities of a stored model."""
    order = axes_of(given.orientation)
    spacing = np.array([s or found.spacing_mm[axis] for s, axis in zip(given.spacing_mm, order, strict=True)])
    why = "as the model was trained from which the run sets out"
    choices = (Choice(f"preprocess.{name}", value, why) for name, value in given.model_dump().items())
    return _on_grid(found, given.orientation, order, spacing, flat), tuple(choices)


def _on_grid(found: Fingerprint, axcodes: str, order: list[int], spacing: Array, flat: bool) -> Grid:
    shape = np.maximum(1, np.round(_shape(found, order, spacing)))
    return Grid(axcodes, order, spacing, shape, flat, found.shown)


def _shape(found: Fingerprint, order: list[int], spacing: Array) -> Array:
    """Voxels of what is shown along each axis of a grid, and parts of them."""
    return np.asarray(np.array(found.shape)[order] * np.array(found.spacing_mm)[order] / spacing)


def _orientation(found: Fingerprint, flat: bool) -> str:
    """RAS; slices of a 2D model lie across the axis that has next to no slices, else the thickest one, which comes last."""
    order = [0, 1, 2]
    if flat:
        few = min(found.shape) < SLAB
        across = int(np.argmin(found.shape)) if few else 2 - int(np.argmax(found.spacing_mm[::-1]))
        order = [n for n in order if n != across] + [across]
    return "".join("RAS"[n] for n in order)


def _spacing(found: Fingerprint, order: list[int], limits: Limits, flat: bool) -> tuple[Array, str]:
    """The usual spacing, coarser where scans would have more voxels than the limits afford; and why."""
    spacing, reason = _usual(found, order, flat)
    voxels = float(np.prod(_shape(found, order, spacing)[: 2 if flat else 3]))
    smallest_ml = min(found.label_ml.values(), default=math.inf)
    coarsest = (smallest_ml * 1000 / _SMALLEST_STRUCTURE) ** (1 / 3)  # so that the smallest structure keeps its voxels
    if voxels > limits.case_voxels and coarsest > spacing.min():
        coarse = _coarsened(spacing, voxels / limits.case_voxels, coarsest, flat)
        if not np.allclose(coarse, spacing):
            reason += f", coarsened because the median {found.shown} would have {in_words(voxels)} voxels; the smallest structure keeps {_SMALLEST_STRUCTURE}"
            spacing = coarse
    return np.array([float(f"{s:.5g}") for s in spacing]), reason


def _usual(found: Fingerprint, order: list[int], flat: bool) -> tuple[Array, str]:
    """The median; along thick axes of volumes what the finest cases have."""
    spacing = np.array(found.spacing_mm)[order]
    thick = spacing > THICK * spacing.min()
    if flat or not thick.any():
        return spacing, "median of the training cases"
    spacing[thick] = np.maximum(np.array(found.thick_spacing_mm)[order][thick], spacing.min())
    return spacing, f"median; along {_letters(order, thick)}, more than {THICK:g} times coarser, the 10th percentile"


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


def _intensity(channel: ChannelFacts) -> dict[str, Any]:
    if not channel.in_hu[0]:
        return {"kind": "z_score"}
    values = {"low": channel.low, "high": channel.high, "mean": channel.mean, "std": max(channel.std, 1e-3)}
    return {"kind": "clip"} | {name: float(f"{value:.6g}") for name, value in values.items()}


def in_words(voxels: float) -> str:
    """A number of voxels as people say it."""
    return f"{voxels / 1e6:.2g} million" if voxels >= 1e6 else f"{voxels / 1e3:.3g} thousand"
