"""From a scan as it lies in a file to the array that a network sees. Undone by geometry, not by history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from medseg import geometry as geo
from medseg import io
from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.extent import bounding_box
from medseg.geometry import region
from medseg.labels import Labels
from medseg.settings import Settings
from medseg.volume import Geometry, Volume
from medseg.wording import counted

Spacing = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
_MOST_VOXELS = 1.5e9  # 1000 x 1000 x 1500; a wrong header asks for more than any memory holds
# Axes closer to right angles than this are treated as such: under a tenth of a voxel over ten voxels.
_UPRIGHT_DEG = 0.5


class Intensity(Settings):
    """How one channel's values become comparable between scans.

    Args:
        kind: "z_score" (minus mean, by standard deviation, of the scan's own foreground), "clip" (to `low` and `high`, then minus
            `mean`, by `std`: for units that mean the same in every scan, such as HU) or "none".
        low, high, mean, std: of "clip", in the image's units.
    """

    kind: Literal["z_score", "clip", "none"] = "z_score"
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class Config(Settings):
    """The grid and the values that a network is trained on.

    Args:
        orientation: directions of the axes, such as "RAS"; slices of 2D models lie across the last axis.
        spacing_mm: of the grid, along those axes; None keeps each scan's own.
        intensity: one for each channel.
        crop_empty: cut away margins in which every channel is exactly 0 (skull-stripped or masked scans).
    """

    orientation: str = "RAS"
    spacing_mm: tuple[Spacing, Spacing, Spacing] = (None, None, None)
    intensity: tuple[Intensity, ...] = (Intensity(),)
    crop_empty: bool = True

    @field_validator("orientation")
    @classmethod
    def _orientation(cls, value: str) -> str:
        return geo.checked_axcodes(value)


def prepare(volume: Volume, config: Config) -> Volume:
    """Bring an image to the grid and the values that a network is trained on.

    Args:
        volume: an image of any geometry, with as many channels as `config.intensity`.
        config: what the network was, or will be, trained on.

    Returns:
        float32 image; its geometry says where it lies, so that `resample_to(mask, volume.geometry)` brings masks back.

    Raises:
        DataError: another number of channels, or values that are not finite.
    """
    if volume.channels != len(config.intensity):
        raise DataError(
            f"the model expects {counted(len(config.intensity), 'channel')}, the scan has {volume.channels}. "
            "Give one file per channel, in the order the model was trained with."
        )
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        bad, size = int(np.count_nonzero(~np.isfinite(volume.array))), volume.array.size
        raise DataError(
            f"the scan holds NaN or infinite values in {bad} of its {size} voxels. Replace them by a number."
        )
    if volume.geometry.shear_deg > _UPRIGHT_DEG:
        target = _affordable(geo.upright(volume.geometry), volume.geometry)
        volume = geo.resample_to(volume, target, fill=float(volume.array.min()))
    volume = geo.reorient(volume, config.orientation)
    if config.crop_empty:
        volume = _without_empty_margins(volume)
    volume = geo.resample_to(volume, _affordable(grid(volume.geometry, config), volume.geometry))
    array = np.stack([_normalise(c, how) for c, how in zip(volume.array, config.intensity, strict=True)])
    return volume.replace(array=array, kind="image")


def _affordable(target: Geometry, scan: Geometry) -> Geometry:
    """The grid that a scan is about to be resampled to; one that no memory can hold is refused."""
    if (voxels := math.prod(target.shape)) > _MOST_VOXELS:
        spacing = " x ".join(f"{s:.3g}" for s in scan.spacing_mm)
        raise DataError(
            f"the prepared scan would have {voxels:.2g} voxels. Is its header right? It has voxels of {spacing} mm "
            f"and axes {scan.shear_deg:.2g} degrees off right angles."
        )
    return target


def prepare_labels(volume: Volume, prepared: Geometry, labels: Labels) -> Array:
    """Classes `(1 or K, I, J, K)` int16 of a mask on the grid of a prepared image; see `Labels.encode`.

    Voxels to ignore become -1; where a mask has a channel per label, one channel that says so is enough.

    Raises:
        DataError: undeclared values, or channels that are not one for each overlapping label.
    """
    moved = geo.resample_to(volume, prepared, "one_hot").array
    if len(moved) == 1:
        return labels.encode(moved[0])
    if len(moved) not in labels.allowed_channels:
        raise DataError(
            f"the mask has {len(moved)} channels, but {counted(len(labels), 'label is', 'labels are')} declared in one"
        )
    classes = (moved > 0).astype(np.int16)
    if labels.ignore is not None:
        classes[:, (moved == labels.ignore).any(0)] = -1
    return classes


def read_image(paths: Sequence[Path]) -> Volume:
    """The image of one case: one file per channel, or one that holds all channels."""
    return combine([io.read(path) for path in paths])


def combine(volumes: Sequence[Volume]) -> Volume:
    """Channels of one case as one volume, on the grid of the first, by world position.

    Raises:
        GeometryError: less than half of the first channel's grid is covered by another one.
    """
    first = volumes[0]
    moved = [first]
    for number, volume in enumerate(volumes[1:], 2):
        check_cover(first.geometry, volume.geometry, number)
        same = geo.same_space(first.geometry, volume.geometry)
        moved.append(volume if same else geo.resample_to(volume, first.geometry, fill=float(volume.array.min())))
    if len(moved) == 1:
        return first
    notes = dict.fromkeys(note for volume in volumes for note in volume.meta.get("notes", ()))
    array = np.concatenate([volume.array.astype(np.float32) for volume in moved])
    return first.replace(array=array, meta={**first.meta, "notes": tuple(notes)})


def check_cover(first: Geometry, other: Geometry, number: int) -> None:
    """Refuse a channel whose grid shows another place than the first one's.

    Args:
        first: grid of the first channel.
        other: grid of another one.
        number: of the other one, counted from 1, for the message.

    Raises:
        GeometryError: less than half of the first one's grid is covered.
    """
    if (share := _covered(first, other)) < 0.5:
        raise GeometryError(
            f"channel {number} covers only {share:.0%} of channel 1: they do not show the same place. "
            "Register them, or give the files of one patient and session."
        )


def grid(geometry: Geometry, config: Config) -> Geometry:
    """The grid that `prepare` resamples an oriented scan to; the very same one where the spacing differs by under 1 %."""
    wanted = [w or s for w, s in zip(config.spacing_mm, geometry.spacing_mm, strict=True)]
    return geometry if np.allclose(wanted, geometry.spacing_mm, rtol=0.01) else geo.with_spacing(geometry, wanted)


def _covered(a: Geometry, b: Geometry) -> float:
    """Share of points spread over grid `a` that lie in grid `b`."""
    points = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 9) for n in a.shape]), -1).reshape(-1, 3)
    index = b.to_index(a.to_world(points))
    return float(((index >= -0.5) & (index <= np.array(b.shape) - 0.5)).all(1).mean())


def _without_empty_margins(volume: Volume) -> Volume:
    i, j, k = bounding_box(np.any(volume.array, axis=0))
    return region.crop(volume, (i, j, k)) if i.stop else volume


def _normalise(channel: Array, how: Intensity) -> Array:
    values = channel.astype(np.float32)
    if how.kind == "clip":
        return np.asarray((np.clip(values, how.low, how.high) - how.mean) / how.std, np.float32)
    if how.kind == "none":
        return values
    # A power of two changes no digit: squares of large values, and deviations of small ones (m2/s, tesla), stay numbers.
    largest = max(values.max(), -values.min())
    np.ldexp(values, -math.frexp(largest)[1], out=values)
    # Exact zeros of a masked scan are not tissue. A plain scan has few of them, and they do no harm there.
    inside = values[values != 0]
    inside = inside if inside.size else values
    return np.asarray((values - inside.mean()) / max(float(inside.std()), 1e-6), np.float32)
