"""What a scanner may do to intensities. Every change takes the rows `(N, *spatial)` that drew it, and their numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from medseg.augment._draw import BIAS_POINTS, Array, Parameters
from medseg.augment._separable import filtered, groups, normalised, smooth, tensor


def change(image: Tensor, parameters: Parameters) -> None:
    """Change intensities of `(B * C, *spatial)` in place, one kind of change after the other, where it was drawn."""
    for names, neutral, apply in _CHANGES:
        drawn = [getattr(parameters, name).reshape(len(image), -1) for name in names]
        for rows in groups(np.flatnonzero((drawn[0] != neutral).any(1)), image):
            part = image[rows]
            apply(part, *(values[rows] for values in drawn))
            if not isinstance(rows, slice):
                image[rows] = part


def _bias(image: Tensor, points: Array) -> None:
    dims = image.ndim - 1
    field = smooth(tensor(points / math.log(2), image.device).view(-1, *[BIAS_POINTS] * dims), image.shape[1:])
    low = image.amin(_space(image), keepdim=True)
    image.sub_(low).mul_(field.exp2_()).add_(low)  # exp2 is three times as quick as exp


def _noise(image: Tensor, deviation: Array, seed: Array) -> None:
    for row, scale, start in zip(image, deviation.ravel(), seed.ravel(), strict=True):
        generator = torch.Generator(image.device).manual_seed(int(start))
        row.add_(torch.randn(row.shape, generator=generator, device=image.device), alpha=float(scale))


def _blur(image: Tensor, sigma: Array) -> None:
    """Gaussian filter, cut off at 5 deviations; at the edge the weights that remain are scaled up to 1."""
    deviation = tensor(sigma, image.device).clamp(min=1e-3)[..., None, None, None]

    def weights(axis: int, out: Tensor, into: Tensor) -> Tensor:
        return torch.exp(-(((out - into) / deviation[:, axis]) ** 2) / 2)

    image.copy_(filtered(image, math.ceil(5 * sigma.max()), weights))


def _brightness(image: Tensor, factor: Array) -> None:
    image.mul_(_beside(factor, image))


def _contrast(image: Tensor, factor: Array) -> None:
    space = _space(image)
    mean = image.mean(space, keepdim=True)
    low, high = image.amin(space, keepdim=True), image.amax(space, keepdim=True)
    image.sub_(mean).mul_(_beside(factor, image)).add_(mean)
    image.clamp_min_(low).clamp_max_(high)  # ten times as quick as both in one


def _resolution(image: Tensor, share: Array) -> None:
    """Average into coarser voxels, and interpolate linearly between their centres."""
    width = 1 / tensor(share, image.device)[..., None, None, None]

    def weights(axis: int, out: Tensor, into: Tensor) -> Tensor:
        wide, length = width[:, axis], image.shape[axis + 1]
        position = (out + 0.5) / wide - 0.5  # in coarse voxels, the first of which begins with the image
        before = position.floor()

        def average(coarse: Tensor) -> Tensor:
            begin, end = coarse * wide - 0.5, ((coarse + 1) * wide - 0.5).clamp(max=length - 0.5)
            return normalised((torch.minimum(end, into + 0.5) - torch.maximum(begin, into - 0.5)).clamp(min=0))

        return average(before).lerp(average(before + 1), position - before)

    image.copy_(filtered(image, math.ceil(1.5 / share.min() + 0.5), weights))


def _gamma(image: Tensor, exponent: Array, inverted: Array) -> None:
    space, sign = _space(image), _beside(1 - 2.0 * inverted, image)
    low, high = image.amin(space, keepdim=True), image.amax(space, keepdim=True)
    mean, deviation = _moments(image)
    image.sub_(torch.where(sign > 0, low, high)).mul_(sign / (high - low).clamp(min=1e-7))  # 0 to 1
    image.log2_().mul_(_beside(exponent, image)).exp2_()  # twice as quick as a power
    bent_mean, bent_deviation = _moments(image)
    image.sub_(bent_mean).mul_(sign * deviation / bent_deviation.clamp(min=1e-7)).add_(mean)


# What was drawn, the value of the first that means nothing was, and what to do: in the order of application.
_CHANGES = (
    (("bias",), 0, _bias),
    (("noise", "noise_seed"), 0, _noise),
    (("blur",), 0, _blur),
    (("brightness",), 1, _brightness),
    (("contrast",), 1, _contrast),
    (("resolution",), 1, _resolution),
    (("gamma", "inverted"), 1, _gamma),
)


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and root of the summed squared distances from it; torch's own deviation takes twenty times as long."""
    space = _space(image)
    mean = image.mean(space, keepdim=True)
    return mean, torch.linalg.vector_norm(image - mean, dim=space, keepdim=True)


def _space(image: Tensor) -> tuple[int, ...]:
    return tuple(range(1, image.ndim))


def _beside(values: Array, image: Tensor) -> Tensor:
    """One value a row, shaped to multiply `(N, *spatial)`."""
    return tensor(values, image.device).view(-1, *[1] * (image.ndim - 1))
