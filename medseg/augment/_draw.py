"""What to change and how much: numbers only, drawn sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PositiveFloat

from medseg.arrays import Array
from medseg.settings import Settings

Size = tuple[int, int, int]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= span[0] <= span[1]:
        raise ValueError("a range is its lowest and its highest value, neither negative")
    return span


Probability = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Share = Annotated[tuple[PositiveFloat, Annotated[float, Field(le=1)]], AfterValidator(_rising)]
Unfolded = Annotated[tuple[float, Annotated[float, Field(le=0.4)]], AfterValidator(_rising)]
Factor = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]

ELASTIC_POINTS, BIAS_POINTS = 7, 5  # control points along an axis; n points span n - 3 intervals of the patch
_THICK = 3.0  # slices more than so many times thicker than their voxels are wide are never mixed
_MARGIN = 0.15  # of the patch, cut on each side for what turns or shrinks into view
_STREAM = 1  # keeps these random numbers apart from those that placed the patch with the same seed


class Config(Settings):
    """How often (`_p`, for each sample, intensities for each channel) and how strongly patches are changed.

    Strengths follow nnU-Net's defaults where it has them (Isensee et al. 2021, supplementary note 4).

    Args:
        rotation_deg: largest angle about the i, j and k axis, either way.
        scale: magnification, lowest and highest; 2 shows everything twice as large.
        shear: largest slope between two axes, either way.
        translation: largest shift as a share of the patch, either way.
        elastic: lowest and highest amplitude of the control points of a cubic B-spline, as a share of their distance. Up to
            0.4 the map never folds (Choi and Lee 2000).
        mirror_axes: axes that are flipped, each with probability 0.5. Volumes lie in RAS+, so axis 0 is left to right.
        bias: lowest and highest amplitude of a smooth field; intensities above the patch's lowest are multiplied by exp(field).
        noise: standard deviation of Gaussian noise.
        blur: standard deviation of a Gaussian filter, in voxels.
        brightness: factor.
        contrast: factor of the distance from the mean; the range stays.
        resolution: share of the voxels along each axis that a coarser scan would have had.
        gamma: exponent on the range; mean and deviation stay. A quarter of the time on the inverted image.
    """

    rotation_p: Probability = 0.2
    rotation_deg: tuple[float, float, float] = (30, 30, 30)
    scale_p: Probability = 0.2
    scale: Factor = (0.7, 1.4)
    shear_p: Probability = 0.1
    shear: float = 0.1
    translation_p: Probability = 0.1
    translation: float = 0.1
    elastic_p: Probability = 0.1
    elastic: Unfolded = (0.1, 0.4)
    mirror_axes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    bias_p: Probability = 0.1
    bias: Range = (0, 1)
    noise_p: Probability = 0.1
    noise: Range = (0, 0.3)
    blur_p: Probability = 0.1
    blur: Range = (0.5, 1)
    brightness_p: Probability = 0.15
    brightness: Factor = (0.75, 1.25)
    contrast_p: Probability = 0.15
    contrast: Factor = (0.75, 1.25)
    resolution_p: Probability = 0.125
    resolution: Share = (0.5, 1)
    gamma_p: Probability = 0.35
    gamma: Factor = (0.7, 1.5)


@dataclass(frozen=True)
class Parameters:
    """What was drawn for B samples with C channels in D dimensions; every array begins with the samples.

    Args:
        matrix: `(B, D, D)` voxel offset from the centre of the patch -> offset in the source; shift: `(B, D)`, added to it.
        elastic: `(B, D, 7, ...)` control points, in voxels; bias: `(B, C, 5, ...)` control points, log intensity.
        mirror: `(B, D)` whether the axis is flipped.
        blur, resolution: `(B, C, D)`, for each axis; neutral across thick slices.
        noise, brightness, contrast, gamma: `(B, C)`; like the others, the value that changes nothing where not drawn.
        inverted: `(B, C)` gamma acts on the negative. noise_seed: `(B, C)`.
    """

    matrix: Array
    shift: Array
    elastic: Array
    mirror: Array
    bias: Array
    noise: Array
    noise_seed: Array
    blur: Array
    brightness: Array
    contrast: Array
    resolution: Array
    gamma: Array
    inverted: Array


def margin(patch: Size, config: Config) -> Size:
    """Voxels to cut around a patch, so that little of what turns into view is missing. The patch lies in its middle."""
    space = (config.rotation_p, config.scale_p, config.shear_p, config.translation_p, config.elastic_p)
    share = _MARGIN if any(space) else 0
    i, j, k = (n + 2 * round(n * share) for n in patch)
    return i, j, k


def draw(
    config: Config,
    seeds: Sequence[Sequence[int]],
    *,
    patch: Size,
    spacing_mm: tuple[float, float, float],
    channels: int,
) -> Parameters:
    """Draw the parameters of a batch.

    Args:
        config: how often and how strongly.
        seeds: one for each sample, for instance `(seed, step, index)`; a sample's parameters depend on nothing else.
        patch: voxels along i, j and k; the last is 1 for 2D models, whose tensors have no k axis.
        spacing_mm: of the voxels. Rotation and shear happen in mm; slices thicker than 3 times their width are not mixed.
        channels: of the image.
    """
    dims = 2 if patch[2] == 1 else 3
    spacing = np.array(spacing_mm[:dims])
    thick = spacing.argmax() if spacing.max() > _THICK * spacing.min() else None
    free = [axis for axis in range(dims) if axis != thick]
    samples = []
    for seed in seeds:
        rng = np.random.default_rng((*seed, _STREAM))
        space = _draw_space(config, rng, np.array(patch[:dims]), spacing, free)
        samples.append(space | _draw_intensity(config, rng, channels, free, dims))
    stacked: dict[str, Any] = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return Parameters(**stacked)


def _draw_space(
    config: Config, rng: np.random.Generator, patch: Array, spacing: Array, free: list[int]
) -> dict[str, Array]:
    dims = len(patch)
    forward = np.eye(dims)  # of mm
    if rng.random() < config.rotation_p:
        forward = _rotation(rng.uniform(-1, 1, 3) * np.radians(config.rotation_deg), free, dims)
    if rng.random() < config.scale_p:
        forward[free] *= np.exp(rng.uniform(*np.log(config.scale)))
    if rng.random() < config.shear_p:
        slope = np.triu(rng.uniform(-config.shear, config.shear, (dims, dims)), 1)
        forward[np.ix_(free, free)] @= (np.eye(dims) + slope)[np.ix_(free, free)]
    matrix = np.linalg.inv(forward) * spacing / spacing[:, None]
    shift, elastic = np.zeros(dims), np.zeros((dims, *[ELASTIC_POINTS] * dims))
    if rng.random() < config.translation_p:
        shift[free] = (rng.uniform(-config.translation, config.translation, dims) * patch)[free]
    if rng.random() < config.elastic_p:
        interval = (patch / (ELASTIC_POINTS - 3)).reshape(-1, *[1] * dims)
        elastic[free] = (rng.uniform(*config.elastic) * interval * rng.uniform(-1, 1, elastic.shape))[free]
        elastic = np.tensordot(matrix, elastic, 1)  # bend, then map: two maps that do not fold, one after the other
    mirror = [axis in config.mirror_axes and rng.random() < 0.5 for axis in range(dims)]
    return {"matrix": matrix, "shift": shift, "elastic": elastic, "mirror": np.array(mirror)}


def _rotation(angles: Array, free: Sequence[int], dims: int) -> Array:
    """Rotation matrix about the i, j and k axis in turn; those that would mix a fixed axis are left out."""
    matrix = np.eye(3)
    for normal, angle in enumerate(angles):
        a, b = (axis for axis in range(3) if axis != normal)
        if a in free and b in free:
            turn = np.eye(3)
            turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            matrix = turn @ matrix
    return matrix[:dims, :dims]


def _draw_intensity(
    config: Config, rng: np.random.Generator, channels: int, free: list[int], dims: int
) -> dict[str, Array]:
    def values(probability: float, span: Range, neutral: float) -> Array:
        return np.where(rng.random(channels) < probability, rng.uniform(*span, channels), neutral)

    blur, resolution = np.zeros((channels, dims)), np.ones((channels, dims))
    blur[:, free] = values(config.blur_p, config.blur, 0)[:, None]
    resolution[:, free] = values(config.resolution_p, config.resolution, 1)[:, None]
    amplitude = values(config.bias_p, config.bias, 0).reshape(-1, *[1] * dims)
    return {
        "bias": amplitude * rng.uniform(-1, 1, (channels, *[BIAS_POINTS] * dims)),
        "noise": values(config.noise_p, config.noise, 0),
        "noise_seed": rng.integers(2**62, size=channels),
        "blur": blur,
        "brightness": values(config.brightness_p, config.brightness, 1),
        "contrast": values(config.contrast_p, config.contrast, 1),
        "resolution": resolution,
        "gamma": values(config.gamma_p, config.gamma, 1),
        "inverted": rng.random(channels) < 0.25,
    }
