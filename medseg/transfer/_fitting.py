"""Weights of another network, brought to the dimensions and channels of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Inflate = Literal["mean", "centre"]


def fitted(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], inflate: Inflate, *, image: bool = True
) -> dict[str, Tensor]:
    """Those that have their shape, or can be given it.

    Args:
        tensors: by the names of this network.
        shapes: of the tensors that are wanted, in the order of the layers.
        inflate: see `inflated`.
        image: the first of these convolutions sees the image.
    """
    first = next((name for name, shape in shapes.items() if image and len(shape) > 2), "")
    made = {n: _made(t, shapes[n], inflate, image=n == first) for n, t in tensors.items() if n in shapes}
    return {name: tensor for name, tensor in made.items() if tensor is not None}


def _made(tensor: Tensor, shape: torch.Size, inflate: Inflate, *, image: bool) -> Tensor | None:
    if tensor.shape[:1] == shape[:1] and tensor.ndim > 2:
        if image and tensor.shape[1] != shape[1]:
            tensor = with_channels(tensor, shape[1])
        if tensor.ndim == 4 and len(shape) == 5 and tensor.shape == shape[:-1]:
            tensor = inflated(tensor, shape[-1], inflate)
    return tensor if tensor.shape == shape else None


def by_axes(weight: Tensor) -> Tensor:
    """A convolution `(O, C, *kernel)` of arrays whose last axis is x as one of `(C, I, J, K)`, whose first is.

    Slices, rows and columns are the order of pictures, and of SimpleITK's arrays.
    """
    return weight.permute(0, 1, *range(weight.ndim - 1, 1, -1)) if weight.ndim > 2 else weight


def as_shown(weight: Tensor) -> Tensor:
    """A 2D convolution of pictures `(O, C, rows, columns)` as one of slices along I and J, in volumes it stays as it is.

    In RAS, I goes against the columns and J against the rows of a slice or photograph as it is shown: without this, a network
    would see all upside down and lying on its side.
    """
    return by_axes(weight).flip(2, 3) if weight.ndim == 4 else weight


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution `(O, C, *kernel)` for images of other channels: each gets the mean over the old ones, in such a size
    that an image of equal channels gives what it gave."""
    return weight.float().mean(1, keepdim=True).expand(-1, channels, *weight.shape[2:]) * (weight.shape[1] / channels)


def inflated(weight: Tensor, depth: int, how: Inflate) -> Tensor:
    """A 2D convolution `(O, C, h, w)` as one in 3D `(O, C, h, w, depth)`, the new axis that of slices.

    An image that is the same in all slices gives what it gave in 2D, away from its ends ("mean": Carreira, Zisserman 2017, Quo
    vadis, action recognition?, arXiv:1705.07750, 3.1). With "centre" all weights lie in the middle slice, so that each slice
    begins as the 2D network saw it.
    """
    if how == "mean":
        return weight[..., None].expand(*weight.shape, depth) / depth
    deep = weight.new_zeros(*weight.shape, depth)
    deep[..., depth // 2] = weight
    return deep
