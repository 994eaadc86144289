"""Random changes of a batch on its device: first drawn as numbers, then applied, samples together.

Space comes first: rotation, scale, shear and translation are one affine map, to which an elastic deformation may be added,
so that every voxel is interpolated once, mirrored or not; samples for which nothing was drawn are cut out of the middle,
flipped at most. Intensities follow: bias field, noise, blur, brightness, contrast, resolution, gamma. Every step touches
only the samples and channels that drew it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.augment._draw import Config, Parameters, draw, margin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Config", "Parameters", "apply", "draw", "margin"]


def apply(image: Tensor, target: Tensor, parameters: Parameters, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Change a batch as drawn, and cut it to the patch.

    Args:
        image: `(B, C, *spatial)`, at least as large as the patch, which lies in its middle (`margin`).
        target: `(B, T, *spatial)` class numbers, any integer type; several channels where labels overlap.
        parameters: of as many samples and channels, for this patch (`draw`).
        patch: voxels along each axis; a last size of 1 is left out for 2D tensors.

    Returns:
        New tensors: the image `(B, C, *patch)` in float32, and the target `(B, T, *patch)` in its own type. What turns
        into view from outside `spatial` is 0 in both.
    """
    from medseg.augment import _intensity, _space  # torch is loaded here, so that a configuration is read without it

    size = tuple(patch[: image.ndim - 2])
    image, target = _space.resample(image.float(), target, parameters, size)
    _intensity.change(image.view(-1, *size), parameters)
    return image, target
