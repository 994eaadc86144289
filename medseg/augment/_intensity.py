"""What a scanner may do to intensities. Every change takes the rows `(N, *spatial)` that drew it, and their numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medseg.augment._draw import BIAS_POINTS, Array, Parameters
from medseg.augment._separable import along, normalised, smooth, tensor


def change(image: Tensor, parameters: Parameters) -> None:
    """Change intensities of `(B * C, *spatial)` in place, one kind of change after the other, where it was drawn."""
    for names, neutral, apply in _CHANGES:
        drawn = [getattr(parameters, name).reshape(len(image), -1) for name in names]
        rows = np.flatnonzero((drawn[0] != neutral).any(1))
        if len(rows):
            image[rows] = apply(image[rows], *(values[rows] for values in drawn))


def _bias(image: Tensor, points: Array) -> Tensor:
    dims = image.ndim - 1
    field = smooth(tensor(points, image.device).view(-1, *[BIAS_POINTS] * dims), image.shape[1:])
    low = image.amin(_space(image), keepdim=True)
    return low + (image - low) * field.exp()


def _noise(image: Tensor, deviation: Array, seed: Array) -> Tensor:
    for row, scale, start in zip(image, deviation.ravel(), seed.ravel(), strict=True):
        generator = torch.Generator(image.device).manual_seed(int(start))
        row += float(scale) * torch.randn(row.shape, generator=generator, device=image.device)
    return image


def _blur(image: Tensor, sigma: Array) -> Tensor:
    """Gaussian filter; at the edge the weights that remain are scaled up to 1."""
    for axis, deviation in enumerate(tensor(sigma, image.device).T):
        index = torch.arange(image.shape[axis + 1], device=image.device)
        distance = (index[:, None] - index) / deviation.clamp(min=1e-3)[:, None, None]
        image = along(image, axis, normalised(torch.exp(-(distance**2) / 2)))
    return image


def _brightness(image: Tensor, factor: Array) -> Tensor:
    return image * _beside(factor, image)


def _contrast(image: Tensor, factor: Array) -> Tensor:
    space = _space(image)
    mean = image.mean(space, keepdim=True)
    low, high = image.amin(space, keepdim=True), image.amax(space, keepdim=True)
    return ((image - mean) * _beside(factor, image) + mean).clamp(low, high)


def _resolution(image: Tensor, share: Array) -> Tensor:
    """Average into coarser voxels, and interpolate linearly between their centres."""
    for axis, fraction in enumerate(tensor(share, image.device).T):
        fine = torch.arange(image.shape[axis + 1], device=image.device)
        width = 1 / fraction[:, None, None]
        coarse = (fine + 0.5) * width - 0.5  # centres (N, 1, n); those beyond the image cover nothing
        begin, end = coarse - width / 2, coarse + width / 2
        covered = torch.minimum(end.mT, fine + 0.5) - torch.maximum(begin.mT, fine - 0.5)
        average = normalised(covered.clamp(min=0))
        near = (1 - (fine[:, None] - coarse).abs() / width).clamp(min=0) * (begin < fine[-1] + 0.5)
        image = along(image, axis, normalised(near) @ average)
    return image


def _gamma(image: Tensor, exponent: Array, inverted: Array) -> Tensor:
    space = _space(image)
    sign = _beside(1 - 2.0 * inverted, image)
    image = image * sign
    deviation, mean = torch.std_mean(image, space, keepdim=True)
    low = image.amin(space, keepdim=True)
    span = (image.amax(space, keepdim=True) - low).clamp(min=1e-7)
    bent = ((image - low) / span) ** _beside(exponent, image)
    bent_deviation, bent_mean = torch.std_mean(bent, space, keepdim=True)
    return ((bent - bent_mean) / bent_deviation.clamp(min=1e-7) * deviation + mean) * sign


_CHANGES: tuple[tuple[tuple[str, ...], float, Callable[..., Tensor]], ...] = (
    (("bias",), 0, _bias),
    (("noise", "noise_seed"), 0, _noise),
    (("blur",), 0, _blur),
    (("brightness",), 1, _brightness),
    (("contrast",), 1, _contrast),
    (("resolution",), 1, _resolution),
    (("gamma", "inverted"), 1, _gamma),
)


def _space(image: Tensor) -> tuple[int, ...]:
    return tuple(range(1, image.ndim))


def _beside(values: Array, image: Tensor) -> Tensor:
    """One value a row, shaped to multiply `(N, *spatial)`."""
    return tensor(values, image.device).view(-1, *[1] * (image.ndim - 1))
