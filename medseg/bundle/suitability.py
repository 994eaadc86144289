"""Whether a scan can be what a model learned: rules on numbers that every bundle holds. They warn, and refuse nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from medseg import volume
from medseg.io import raster
from medseg.preprocess import Config
from medseg.volume import Geometry, Volume

_COARSER, _FINER = 4, 10  # than the model's grid, which may be coarser than the scans that it learned from, not finer
_LEAST_SHARE = 0.25  # of a window that a scan must fill along each axis
_TURNED_DEG = 38.0
_AIR_HU = -200  # whatever a CT shows, there is air or padding around it


def warnings(
    scan: Volume, prepared: Geometry, config: Config, window: Sequence[int], channels: Sequence[str] = ()
) -> tuple[str, ...]:
    """What speaks against a scan, one line each with its numbers.

    Args:
        scan: as read, channels as many as the model's.
        prepared: its grid as the model sees it.
        config: how the model prepares scans.
        window: voxels of the model's window on that grid.
        channels: what the model says that each channel is, if it says so.
    """
    found = (
        _noted(scan),
        _modality(scan, channels),
        _values(scan, config),
        _turn(scan.geometry),
        _spacing(scan, config),
        _extent(prepared, window),
    )
    return tuple(itertools.chain(*found))


def _noted(scan: Volume) -> list[str]:
    """What was odd about the file; that a picture has no place in space is not."""
    return [note for note in scan.meta.get("notes", ()) if note != raster.NOTE]


def _modality(scan: Volume, channels: Sequence[str]) -> list[str]:
    """DICOM says what a scan is, and a model's channels often do."""
    known, learned = set(volume.MODALITIES.values()), [volume.modality(name) for name in channels[:1]]
    own = scan.meta.get("modality", "")
    if own not in known or not known.intersection(learned) or own in learned:
        return []
    return [f"the scan is {own}, by its DICOM files, and the model learned from {channels[0]}"]


def _values(scan: Volume, config: Config) -> list[str]:
    """Channels of one value, and channels that are not in HU where the model clips to a range that begins below 0."""
    found = []
    for number, (channel, how) in enumerate(zip(scan.array, config.intensity, strict=True), 1):
        low, high = float(channel.min()), float(channel.max())
        name = f"channel {number}" if scan.channels > 1 else "the scan"
        if low == high:
            found.append(f"{name} holds one value, {low:.4g}, in all voxels")
        elif how.kind == "clip" and how.low < 0 and low > _AIR_HU:
            found.append(
                f"{name} does not look like Hounsfield units: its values run from {low:.4g} to {high:.4g}, "
                f"and the model looks at {how.low:.4g} to {how.high:.4g}"
            )
    return found


def _turn(grid: Geometry) -> list[str]:
    """Near 45 degrees it is chance which axis of the body an axis of the grid is taken for."""
    steps = np.abs(grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0))
    turned = float(np.degrees(np.arccos(steps.max(0).min().clip(0, 1))))
    if turned < _TURNED_DEG:
        return []
    return [f"the scan is rotated by {turned:.0f} degrees; its axes are taken for the nearest ones of the body"]


def _spacing(scan: Volume, config: Config) -> list[str]:
    own = scan.geometry.spacing_along(config.orientation)
    ratios = [1.0 if wanted is None else mm / wanted for mm, wanted in zip(own, config.spacing_mm, strict=True)]
    if min(ratios) >= 1 / _FINER and max(ratios) <= _COARSER:
        return []
    wanted = " x ".join("any" if mm is None else f"{mm:.3g}" for mm in config.spacing_mm)
    return [f"voxels of {_mm(own)} mm are far from the {wanted} mm that the model works at"]


def _extent(prepared: Geometry, window: Sequence[int]) -> list[str]:
    shown, wanted = np.array(prepared.shape) * prepared.spacing_mm, np.array(window) * prepared.spacing_mm
    small = bool((shown < _LEAST_SHARE * wanted).any())
    return [f"the scan shows only {_mm(shown)} mm, and the model looks at {_mm(wanted)} mm at once"] if small else []


def _mm(lengths: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{mm:.3g}" for mm in lengths)
