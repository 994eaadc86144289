"""Mean field of a fully connected conditional random field: every voxel talks to every other (Kraehenbuehl and Koltun 2011,
Efficient inference in fully connected CRFs with Gaussian edge potentials, arXiv:1210.5644).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.crf.lattice import Lattice

# Points up to which all pairs are added up one by one: it takes no more memory then, and no lattice's error.
EXACT = 2048


class Gaussian:
    """A kernel between all voxels: a Gaussian of the distance of their features (equation 3).

    Args:
        features: `(N, d)`, each divided by its theta.
        normalised: divide by the roots of both voxels' sums of the kernel, as in the authors' code, so that weights mean the same
            whatever the thetas; else as in equation 3.
        exact: add up all pairs; by default where there are few.
    """

    def __init__(self, features: Tensor, *, normalised: bool = True, exact: bool | None = None) -> None:
        features = features.detach().float()
        few = len(features) <= EXACT if exact is None else exact
        self._pairs = (-0.5 * _distance(features) ** 2).exp() if few else None
        self._lattice = None if few or features.is_meta else Lattice(features)
        one = torch.ones(len(features), 1, device=features.device)
        self.norm = self._sum(one).clamp(min=1e-20).rsqrt() if normalised else one

    def __call__(self, values: Tensor) -> Tensor:
        """For each voxel the weighted sum of the others' values, `(N, C)`."""
        return self.norm * self._sum(self.norm * values) - self.norm**2 * values

    def _sum(self, values: Tensor) -> Tensor:
        if self._pairs is not None:
            return self._pairs @ values
        return values if self._lattice is None else self._lattice(values)  # to count costs: look-ups are no products


def _distance(features: Tensor) -> Tensor:
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def places(size: Sequence[int], spacing: Sequence[float], device: torch.device) -> Tensor:
    """Where the voxels of a grid lie, `(N, axes)`, in the unit of the spacing; an axis of one voxel is none."""
    axes = [torch.arange(n, device=device) * float(step) for n, step in zip(size, spacing, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return grid[:, [axis for axis, n in enumerate(size) if n > 1]]


def mean_field(
    logits: Tensor,
    kernels: Sequence[Gaussian],
    weights: Sequence[Tensor | float],
    compatibility: Tensor,
    iterations: int,
) -> Tensor:
    """Algorithm 1: so many rounds of messages between all voxels.

    Args:
        logits: `(N, K)`: what speaks for each class, the negative unary energy.
        kernels: by which voxels talk.
        weights: of each kernel, one for all classes or one per class.
        compatibility: `(K, K)`: what it costs to be of class k beside one of class l; 1 off the diagonal is Potts' model.
        iterations: rounds.

    Returns:
        Logits of the marginals, `(N, K)`. Constant ones stay constant under a compatibility of equal row sums.
    """
    found = logits
    for _ in range(iterations):
        likely = found.softmax(1)
        messages = torch.stack([weight * kernel(likely) for kernel, weight in zip(kernels, weights, strict=True)])
        found = logits - messages.sum(0) @ compatibility.T
    return found


def potts(classes: int, device: torch.device) -> Tensor:
    """Different classes cost 1, the same costs nothing."""
    return 1 - torch.eye(classes, device=device)
