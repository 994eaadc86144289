"""Dense CRF: probabilities that follow the image's edges, by messages between all pairs of voxels, in images and volumes.

Kraehenbuehl and Koltun 2011, Efficient inference in fully connected CRFs with Gaussian edge potentials, arXiv:1210.5644. Whether it
helps depends on the thetas, and has to be seen on cases that are not the ones reported.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medseg.crf.mean_field import Gaussian, mean_field, places, potts
from medseg.errors import ConfigError
from medseg.settings import Settings
from medseg.volume import Volume

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Theta = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(Settings):
    """Two Gaussian kernels, named as in equation 3 of the paper.

    The defaults are gentle: larger weights and widths, as for photographs, wipe out what is a few mm wide.

    Args:
        w1: weight of the appearance kernel: near voxels of like values are of one class.
        theta_alpha: its width in space, in mm.
        theta_beta: its width in values, those of the image that is given.
        w2: weight of the smoothness kernel: near voxels are of one class.
        theta_gamma: its width, in mm.
        iterations: rounds of messages.
        normalised: divide each kernel by its sums, as the authors' code does; without it the weights are those of equation 3.
    """

    w1: Weight = 1.0
    theta_alpha: Theta = 3.0
    theta_beta: Theta = 0.2
    w2: Weight = 1.0
    theta_gamma: Theta = 2.0
    iterations: Annotated[int, Field(ge=1)] = 10
    normalised: bool = True


def refine(probabilities: Volume, image: Volume, config: Config | None = None) -> Volume:
    """Probabilities after messages between all voxels.

    Args:
        probabilities: `(C, I, J, K)` of classes that exclude each other, as `Prediction.probabilities`.
        image: on the same grid, of any channels; one slice makes it the 2D method.
        config: kernels; made for images of mean 0 and spread 1.

    Returns:
        Probabilities on the same grid. Where all classes are as likely everywhere, they stay so.

    Raises:
        ConfigError: the grids differ, there is a single class, or the thetas are too small to number places.

    Example:
        >>> found = predictor(scan, probabilities=True)
        >>> likely = refine(found.probabilities, scan, Config(theta_beta=20))  # a CT: 20 HU
    """
    config = config or Config()
    if probabilities.array.shape[1:] != image.array.shape[1:]:
        shapes = f"{probabilities.array.shape[1:]} and {image.array.shape[1:]}"
        raise ConfigError(f"dense_crf: expected probabilities and an image of the same grid, got {shapes}")
    if probabilities.channels < 2:
        raise ConfigError("dense_crf: expected probabilities of two classes or more, got one")
    likely = _listed(probabilities)
    values = _listed(image)
    where = places(image.array.shape[1:], image.geometry.spacing_mm, likely.device)
    appearance = torch.cat([where / config.theta_alpha, values / config.theta_beta], 1)
    kernels = [
        Gaussian(features, normalised=config.normalised) for features in (appearance, where / config.theta_gamma)
    ]
    logits = likely.clamp(min=1e-7).log()
    found = mean_field(
        logits, kernels, (config.w1, config.w2), potts(likely.shape[1], likely.device), config.iterations
    )
    array = found.softmax(1).T.reshape(probabilities.array.shape).numpy()
    return probabilities.replace(array=array)


def _listed(volume: Volume) -> Tensor:
    """`(voxels, channels)`."""
    return torch.tensor(volume.array, dtype=torch.float32).flatten(1).T
