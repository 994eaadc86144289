"""From what a dataset is to how it is learned: arithmetic on numbers, every choice with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.fingerprint import ChannelFacts, Fingerprint
from medseg.labels import Labels
from medseg.settings import Settings

Array = npt.NDArray[Any]
_THICK = 3.0  # spacing beyond so many times the finest one is anisotropic
_SLAB = 4  # slices below which there is no volume to learn from
_STEPS = 1000  # that a budget must hold
_HALVED = 5  # voxels that an axis needs to be halved once more
_SMALLEST_STRUCTURE = 200  # voxels that the smallest structure keeps when the grid is made coarser


class Limits(Settings):
    """What a device affords.

    Args:
        case_voxels: of a whole scan on the training grid, beyond which the grid is made coarser.
        patch_voxels: of one patch; slice_voxels: of one slice for 2D models.
        step_voxels: of all patches of a step.
        width: channels of the first stage; doubled each stage up to `widest`.
        first_stride: 2 computes the first stage at half resolution.
    """

    case_voxels: float
    patch_voxels: float
    slice_voxels: float
    step_voxels: float
    width: int
    widest: int
    first_stride: int


# On a CPU the network decides: its first stage at half resolution learns several times more a second.
LIMITS: Mapping[str, Limits] = {
    "cpu": Limits(
        case_voxels=3e6,
        patch_voxels=96**3,
        slice_voxels=256**2,
        step_voxels=550_000,
        width=24,
        widest=192,
        first_stride=2,
    ),
    "gpu": Limits(
        case_voxels=4e7,
        patch_voxels=128**3,
        slice_voxels=512**2,
        step_voxels=2 * 128**3,
        width=32,
        widest=320,
        first_stride=1,
    ),
}


# What the default network gets through, forward and back: measured on two cores with bf16, guessed for a GPU.
VOXELS_A_SECOND: Mapping[str, float] = {"cpu": 7e5, "gpu": 5e7}


class Choice(NamedTuple):
    """One setting, and why."""

    name: str
    value: Any
    reason: str


def plan(
    found: Fingerprint,
    labels: Labels,
    device: Literal["cpu", "gpu"],
    dims: Literal["auto", "2", "3"] = "auto",
    voxels: float | None = None,
) -> tuple[Choice, ...]:
    """Choose every setting that depends on the data. Deterministic: the same numbers give the same plan.

    Args:
        found: what the training cases are like.
        labels: their structures.
        device: which limits hold.
        dims: "2" learns slices, "3" volumes; "auto" learns slices only where there is nothing else.
        voxels: patch voxels that training gets through in its budget; None for as many as it likes.
    """
    limits = _in_time(LIMITS[device], voxels)
    flat = dims == "2" or (dims == "auto" and min(found.shape) < _SLAB)
    axcodes, order = _orientation(found, flat)
    spacing, why_spacing = _spacing(found, order, limits, flat)
    shape = np.maximum(1, np.round(np.array(found.shape)[order] * np.array(found.spacing_mm)[order] / spacing))
    size = _patch(shape, spacing, limits, flat)
    strides, kernels = _stages(size, spacing, limits, flat)
    # Networks take any size; a multiple of 8 leaves no ragged edge where it would cost most.
    factor = [*np.minimum(np.prod(strides, axis=0), 8), 1]
    patch = tuple(int(-(-p // f) * f) if p > 1 else 1 for p, f in zip(size, factor[:3], strict=True))
    batch = int(np.clip(limits.step_voxels // np.prod(patch), 2, 64 if flat else 16))
    sides = labels.sides()
    across = next((n for n, code in enumerate(axcodes) if code in "RL"))
    axes = tuple(n for n in range(2 if flat else 3) if not (sides and n == across))
    widths = tuple(min(limits.width * 2**n, limits.widest) for n in range(len(strides)))
    scans = "x".join(str(int(n)) for n in shape)
    return (
        Choice(
            "preprocess.orientation",
            axcodes,
            "slices lie across the last axis" if flat else "one orientation for all scans",
        ),
        Choice("preprocess.spacing_mm", tuple(float(s) for s in spacing), why_spacing),
        Choice("preprocess.intensity", tuple(_intensity(c) for c in found.channels), _why_intensity(found.channels)),
        Choice(
            "sample.patch",
            patch,
            f"the median scan has {scans} voxels on this grid; a {device} affords patches of {_count(_patch_limit(limits, flat))}",
        ),
        Choice(
            "train.batch",
            batch,
            f"{_count(limits.step_voxels)} voxels a step, in patches of {'x'.join(map(str, patch))}",
        ),
        Choice("model.strides", strides, _why_strides(limits)),
        Choice("model.kernels", kernels, "3 along axes whose spacing is within twice the finest, 1 along thicker ones"),
        Choice("model.widths", widths, f"{limits.width} channels at first on a {device}, doubled with each stage"),
        Choice("model.blocks", (1,) * len(strides), "one residual unit a stage"),
        Choice("augment.mirror_axes", axes, _why_mirror(labels, sides)),
        Choice(
            "augment.bias_p",
            0.0 if all(_is_ct(c)[0] for c in found.channels) else 0.1,
            "a coil's bias field is in MR, not in CT",
        ),
        Choice("inference.window", patch, "as trained"),
        Choice("inference.mirror_axes", axes, "the flips that training showed"),
    )


def _in_time(limits: Limits, voxels: float | None) -> Limits:
    """Limits that leave at least `_STEPS` steps of two patches, however short the budget; patches stay above 32^3."""
    if voxels is None:
        return limits
    step = min(limits.step_voxels, voxels / _STEPS)
    patch = min(limits.patch_voxels, max(voxels / _STEPS / 2, 32**3))
    return limits.model_copy(
        update={"step_voxels": step, "patch_voxels": patch, "slice_voxels": min(limits.slice_voxels, patch)}
    )


def _orientation(found: Fingerprint, flat: bool) -> tuple[str, list[int]]:
    """RAS; slices of a 2D model lie across the axis that has next to no slices, else the thickest one, which comes last."""
    order = [0, 1, 2]
    if flat:
        few = min(found.shape) < _SLAB
        across = int(np.argmin(found.shape)) if few else 2 - int(np.argmax(found.spacing_mm[::-1]))
        order = [n for n in order if n != across] + [across]
    return "".join("RAS"[n] for n in order), order


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
            reason += f", coarsened because the median scan would have {_count(voxels)} voxels; the smallest structure keeps {_SMALLEST_STRUCTURE}"
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


def _patch(shape: Array, spacing: Array, limits: Limits, flat: bool) -> tuple[int, int, int]:
    """As much of the median scan as the limit allows, shortened along the longest physical axis first."""
    size = shape.astype(float)
    if flat:
        size[2] = 1
    while np.prod(size) > _patch_limit(limits, flat):
        extent = np.where(size > 1, size * np.minimum(spacing, _THICK * spacing.min()), 0)
        size[int(extent.argmax())] *= 0.97
    i, j, k = (max(1, int(n)) for n in np.round(size))
    return i, j, k


def _patch_limit(limits: Limits, flat: bool) -> float:
    return limits.slice_voxels if flat else limits.patch_voxels


def _stages(
    patch: Sequence[int], spacing: Array, limits: Limits, flat: bool
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Strides and kernels of each stage: axes are halved while they have five voxels, finer ones before thicker ones."""
    dims = 2 if flat else 3
    size, step = np.array(patch[:dims], float), spacing[:dims].copy()
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
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
    return tuple(strides), tuple(kernels)


def _why_strides(limits: Limits) -> str:
    start = (
        "the first stage at half resolution: a CPU then learns several times more a second"
        if limits.first_stride == 2
        else "the first stage at full resolution"
    )
    return f"{start}; each axis is halved while it has five voxels, thick ones later"


def _intensity(channel: ChannelFacts) -> dict[str, Any]:
    if _is_ct(channel)[0]:
        values = {"low": channel.low, "high": channel.high, "mean": channel.mean, "std": max(channel.std, 1e-3)}
        return {"kind": "clip"} | {name: float(f"{value:.6g}") for name, value in values.items()}
    return {"kind": "z_score"}


def _why_intensity(channels: Sequence[ChannelFacts]) -> str:
    return "; ".join(f"{c.name}: {_is_ct(c)[1]}" for c in channels)


def _is_ct(channel: ChannelFacts) -> tuple[bool, str]:
    """Whether a channel holds HU, and how we know: the dataset's word first, then the numbers."""
    name = channel.name.strip().lower()
    if name in ("ct", "cbct", "hu"):
        return True, "CT, the dataset says: clipped to the percentiles 0.5 and 99.5 inside structures"
    numbers = f"median of the smallest values {channel.minimum:.4g}, inside structures {channel.low:.4g} to {channel.high:.4g}"
    if name in ("", "image") or name.startswith("channel"):
        if channel.minimum <= -900 and channel.low > -1100 and channel.high < 4000:
            return True, f"taken for CT, for air is near -1000 ({numbers}): clipped as HU"
        return False, f"not taken for CT ({numbers}): z-score of the scan's foreground"
    return False, f"'{channel.name}' has no absolute unit: z-score of the scan's foreground"


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
