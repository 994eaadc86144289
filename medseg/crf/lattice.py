"""Sums over all pairs of points, weighted by a Gaussian of their distance: on a permutohedral lattice, or exactly where points are few.

Adams, Baek, Davis 2010, Fast high-dimensional filtering using the permutohedral lattice, Computer Graphics Forum 29.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medseg.errors import ConfigError

_FAR = 1e5  # standard deviations, beyond which float32 does not tell a simplex from the next
_TOO_SMALL = "crf: the thetas are too small for the image's size and values; expected larger ones"


class Lattice:
    """Values are handed to the corners of the simplex around each point, blurred along the lattice, and fetched again.

    Memory and time grow with the number of points, whatever the Gaussian's width.

    Args:
        features: `(N, d)`, in standard deviations.

    Raises:
        ConfigError: the points lie so many standard deviations apart that places of the lattice cannot be numbered.
    """

    def __init__(self, features: Tensor) -> None:
        dims = features.shape[1]
        if features.abs().amax() > _FAR:
            raise ConfigError(_TOO_SMALL)
        base, rank, self.weights = _simplex(features)
        low = base.amin(0)[:dims] - 2 * dims - 1
        extent = (base.amax(0)[:dims] + 2 * dims + 2 - low).tolist()
        if math.prod(extent) >= 2**62:
            raise ConfigError(_TOO_SMALL)
        step = torch.tensor([math.prod(extent[axis + 1 :]) for axis in range(dims)], device=base.device)
        codes = [
            ((base + corner - (dims + 1) * (rank > dims - corner))[:, :dims] - low).mul(step).sum(1)
            for corner in range(dims + 1)
        ]
        places, self.corners = torch.unique(torch.stack(codes), return_inverse=True)  # (M,), (d + 1, N)
        self.count = len(places)
        along = torch.cat([step.sum() - (dims + 1) * step, step.sum()[None]])  # what one step adds to a place's number
        self.neighbours = [(_found(places, places - by), _found(places, places + by)) for by in along]
        # What a blurred one adds up to, over the integral of a Gaussian: vertices have a volume of (3/2)^(d/2) / sqrt(d + 1).
        self.total = 2 ** (dims + 1) * (3 / (4 * math.pi)) ** (dims / 2) / math.sqrt(dims + 1)

    def __call__(self, values: Tensor) -> Tensor:
        """For each point the sum over all points, itself included; values and sums are `(N, C)`."""
        nothing = values.new_zeros(1, values.shape[1])  # what lies at places without a point
        places = values.new_zeros(self.count, values.shape[1])
        for corner, weight in zip(self.corners, self.weights, strict=True):
            places = places.index_add(0, corner, values * weight[:, None])
        for before, after in self.neighbours:
            padded = torch.cat([places, nothing])
            places = places + (padded[before] + padded[after]) / 2
        fetched = (places[corner] * weight[:, None] for corner, weight in zip(self.corners, self.weights, strict=True))
        return torch.stack(list(fetched)).sum(0) / self.total


def _simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Around each point: the corner of remainder 0 `(N, d + 1)`, the order of the distances to it, and the weights `(d + 1, N)`.

    Sections 3 and 4 of the paper: the plane of zero sum is reached by a triangular matrix, whose columns are orthogonal.
    """
    dims = features.shape[1]
    index = torch.arange(dims, device=features.device)
    scale = (dims + 1) * math.sqrt(2 / 3) / ((index + 1) * (index + 2)).sqrt()
    plane = torch.ones(dims + 1, dims, device=features.device).triu()
    plane[index + 1, index] = -(index + 1).float()
    point = (features[:, None] * (plane * scale)).sum(2)  # no matrix product: autocast would make it coarse
    base = (point / (dims + 1)).round().long() * (dims + 1)
    order = (point - base).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(1) + base.sum(1, keepdim=True) // (dims + 1)
    turn = (dims + 1) * ((rank < 0).long() - (rank > dims).long())
    base, rank = base + turn, rank + turn
    inside = (point - base) / (dims + 1)
    falling = torch.zeros_like(inside).scatter(1, rank, inside).flip(1)
    weights = falling - falling.roll(1, 1)
    weights[:, 0] += 1
    return base, rank, weights.T


def _found(places: Tensor, wanted: Tensor) -> Tensor:
    """Where numbers are among the sorted ones; those that are not, at the end."""
    index = torch.searchsorted(places, wanted).clamp(max=len(places) - 1)
    return torch.where(places[index] == wanted, index, len(places))
