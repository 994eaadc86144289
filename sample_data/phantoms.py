"""Phantoms made of shapes with known volumes, and the scanners that see them.

Shapes live in millimetres (RAS+: x to the right, y to the front, z up) and are cut by whatever grid a scan uses, so that the
same anatomy can be scanned upright, oblique, in thick slices or twice. No two shapes mirror each other: any flip shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

Array = npt.NDArray[Any]
# The legacy generator: numpy keeps its stream for ever, which it does not promise for the newer one.
Random = np.random.RandomState

HEAD = ("left nucleus", "right nucleus", "arch")
TRUNK = ("left kidney", "right kidney", "aorta")
CELL = ("nucleus", "granule")


class Ellipsoid(NamedTuple):
    """A solid ellipsoid along the axes of the phantom."""

    centre: Array
    radii: Array

    def holds(self, points: Array) -> Array:
        """Which points `(..., 3)` lie inside."""
        return np.asarray((((points - self.centre) / self.radii) ** 2).sum(-1) <= 1)

    @property
    def volume_ml(self) -> float:
        """4/3 pi a b c."""
        return float(4 / 3 * np.pi * np.prod(self.radii) / 1000)


class Arch(NamedTuple):
    """A tube round the upper half of a circle in the x-z plane, with round ends."""

    centre: Array
    radius: float
    tube: float

    def holds(self, points: Array) -> Array:
        """Which points `(..., 3)` lie within the tube's radius of the half circle."""
        x, y, z = np.moveaxis(points - self.centre, -1, 0)
        to_curve = np.where(z > 0, np.hypot(x, z) - self.radius, np.hypot(np.abs(x) - self.radius, z))
        return np.asarray(np.hypot(to_curve, y) <= self.tube)

    @property
    def volume_ml(self) -> float:
        """Pappus: the section times the way of its centre; the two ends are half balls."""
        return float(np.pi * self.tube**2 * np.pi * self.radius + 4 / 3 * np.pi * self.tube**3) / 1000


class Part(NamedTuple):
    """A shape, its brightness in each channel, and its label (0: not labelled). Later parts hide earlier ones."""

    shape: Ellipsoid | Arch
    values: tuple[float, ...]
    label: int = 0


@dataclass(frozen=True)
class Phantom:
    """Parts, and where they stand in the world: `world = linear @ own + offset`."""

    parts: tuple[Part, ...]
    linear: Array
    offset: Array

    def scan(self, shape: Sequence[int], affine: Array, channel: int = 0, air: float = 0) -> tuple[Array, Array]:
        """Brightness and labels at the voxel centres of a grid."""
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        world = index @ affine[:3, :3].T + affine[:3, 3]
        own = (world - self.offset) @ np.linalg.inv(self.linear).T
        image, labels = np.full(shape, float(air)), np.zeros(shape, np.uint8)
        for part in self.parts:
            inside = part.shape.holds(own)
            if labels[inside].any():
                raise AssertionError("two structures overlap, so their volumes are not those of the formulas")
            image[inside], labels[inside] = part.values[channel], part.label
        return image, labels

    def volumes_ml(self) -> dict[int, float]:
        """Volume of each label from the formulas."""
        scale = abs(float(np.linalg.det(self.linear)))
        return {part.label: part.shape.volume_ml * scale for part in self.parts if part.label}


def pose(rng: Random, parts: Sequence[Part], degrees: float = 10, shift_mm: float = 1.5) -> Phantom:
    """Turn, stretch and move the parts a little."""
    turn = Rotation.from_euler("xyz", rng.uniform(-degrees, degrees, 3), degrees=True).as_matrix()
    return Phantom(tuple(parts), turn @ np.diag(rng.uniform(0.93, 1.07, 3)), rng.uniform(-shift_mm, shift_mm, 3))


def vary(rng: Random, *numbers: float, share: float = 0.0, by: float = 0.0) -> Array:
    """Numbers changed at random, by a share of each or by an amount."""
    return np.array(numbers) * rng.uniform(1 - share, 1 + share, len(numbers)) + rng.uniform(-by, by, len(numbers))


def head(rng: Random) -> Phantom:
    """A small head: two unlike nuclei, an arch at the back, and bright spots that are not labelled. T1, T2."""
    bright, dark = (float(rng.uniform(132, 160)), 75.0), (float(rng.uniform(60, 75)), 130.0)
    spots = [Ellipsoid(rng.uniform(-10, 10, 3), rng.uniform(1, 2.5, 3)) for _ in range(4)]
    return pose(
        rng,
        [
            Part(Ellipsoid(np.zeros(3), np.array([21, 25, 17])), (60, 80)),
            Part(Ellipsoid(np.zeros(3), np.array([19.5, 23.5, 15.5])), (100, 100)),
            *(Part(spot, bright) for spot in spots),
            Part(Ellipsoid(np.array([-1, 3, 4]), vary(rng, 2, 8, 3, share=0.2)), (40, 160)),
            Part(Ellipsoid(vary(rng, -9, 5, -3, by=0.7), vary(rng, 5, 8, 4.5, share=0.12)), bright, 1),
            Part(Ellipsoid(vary(rng, 9, -4, 2, by=0.7), vary(rng, 4, 5.5, 4.5, share=0.12)), bright, 2),
            Part(Arch(vary(rng, -1, -16, -4, by=0.5), *vary(rng, 8, 2.5, share=0.1)), dark, 3),
        ],
    )


def trunk(rng: Random) -> Phantom:
    """A piece of a trunk in Hounsfield units: two unlike kidneys, a bent vessel, and a spine that is not labelled."""
    kidney, blood = (float(rng.uniform(110, 140)),), (float(rng.uniform(190, 230)),)
    return pose(
        rng,
        [
            Part(Ellipsoid(np.zeros(3), np.array([29, 24, 200])), (-95,)),
            Part(Ellipsoid(np.zeros(3), np.array([27, 22, 200])), (45,)),
            Part(Ellipsoid(np.array([0, -14, 0]), np.array([5, 5, 200])), (480,)),
            Part(Ellipsoid(np.array([10, 14, 8]), np.array([6, 4, 9])), (-800,)),
            Part(Ellipsoid(vary(rng, -13, -6, 4, by=0.7), vary(rng, 6, 5, 11, share=0.1)), kidney, 1),
            Part(Ellipsoid(vary(rng, 13, -4, -5, by=0.7), vary(rng, 5, 5, 8, share=0.1)), kidney, 2),
            Part(Arch(vary(rng, -2, 7, -6, by=0.7), *vary(rng, 11, 3.5, share=0.1)), blood, 3),
        ],
        degrees=5,
    )


def cell(rng: Random, centre: Array) -> Phantom:
    """A cell with a nucleus and a small granule, to be cut through the middle.

    Its ellipsoids are 0.75 mm high: what they hold is then the area of that cut, 1 mm thick.
    """
    flat = np.diag([*rng.uniform(0.9, 1.1, 2), 1.0])
    turn = Rotation.from_euler("z", rng.uniform(-20, 20), degrees=True).as_matrix()
    parts = [
        Part(Ellipsoid(np.zeros(3), np.array([38, 28, 0.75])), (90,)),
        Part(Ellipsoid(np.array([8, -4, 0]), np.append(vary(rng, 16, 11, share=0.1), 0.75)), (150,), 1),
        Part(Ellipsoid(np.array([-21, 7, 0]), np.append(vary(rng, 6, 5, share=0.1), 0.75)), (50,), 2),
    ]
    return Phantom(tuple(parts), turn @ flat, centre + np.append(rng.uniform(-4, 4, 2), 0.0))


def mr(rng: Random, image: Array) -> Array:
    """As a magnet would show it: blur, uneven coils, Rician noise, and units that mean nothing."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    bias = np.exp(
        sum(a * axis + b * axis**2 for a, b, axis in zip(*rng.uniform(-0.15, 0.15, (2, 3)), axes, strict=True))
    )
    clean = gaussian_filter(image, rng.uniform(0.4, 0.8)) * bias
    noisy = np.hypot(clean + (noise := rng.uniform(4, 9)) * rng.randn(*image.shape), noise * rng.randn(*image.shape))
    return np.asarray(np.rint(noisy * rng.uniform(0.4, 1.2)), np.int16)


def ct(rng: Random, image: Array) -> Array:
    """As a scanner would show it: blur and noise, in Hounsfield units."""
    return np.asarray(np.rint(gaussian_filter(image, 0.5) + 14 * rng.randn(*image.shape)), np.int16)
