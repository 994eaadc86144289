"""CRF-RNN: any network of the list, and a dense CRF behind it whose rounds of messages are layers that learn.

Family: recurrent
Paper: Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr 2015, Conditional random fields as recurrent neural networks,
    arXiv:1502.03240
Without: torch.compile, ONNX (the lattice is as large as the image's values make it)

Presets:
    paper: on FCN-8s: two kernels, whose weights and compatibility between classes are learned.
    unet: on the U-Net of the default run.
    tiny: on the tiny U-Net.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.crf.mean_field import Gaussian, mean_field, places, potts
from medseg.models._blocks import Output, Times
from medseg.models._inner import Inner, create
from medseg.settings import Settings

Theta = Annotated[float, Field(ge=0.001)]  # the lattice counts in these widths, and its places have to be whole numbers


class Config(Settings):
    """Options of a CRF-RNN.

    Args:
        model: the network whose logits are the unary part: a mapping of `name`, `preset` and options.
        theta_alpha: width of the appearance kernel in space, in voxels.
        theta_beta: its width in values of the image as the network sees it.
        theta_gamma: width of the smoothness kernel, in voxels.
        iterations: rounds of messages in training.
        final_iterations: in evaluation.
    """

    model: Inner = Field(default_factory=lambda: {"name": "fcn", "preset": "8s"}, validate_default=True)
    theta_alpha: Theta = 160.0
    theta_beta: Theta = 0.25
    theta_gamma: Theta = 3.0
    iterations: Times = 5
    final_iterations: Times = 10


PRESETS = {
    "paper": Config(),
    "unet": Config(model={"name": "unet", "preset": "residual"}, theta_alpha=20),
    "tiny": Config(model={"name": "unet", "preset": "tiny"}, theta_alpha=20),
}


class CRFRNN(nn.Module):
    """Mean field after a network.

    Args:
        net: gives logits.
        classes: their number.
        thetas: of appearance in space and in values, and of smoothness.
        iterations: in training and in evaluation.
    """

    def __init__(
        self, net: nn.Module, classes: int, thetas: tuple[float, float, float], iterations: tuple[int, int]
    ) -> None:
        super().__init__()
        self.net, self.thetas, self.iterations = net, thetas, iterations
        # Of appearance and smoothness, one a class (section 4.2, "weighting filter outputs"); the start is that of DeepLab's CRF.
        self.weights = nn.Parameter(torch.tensor([[4.0], [3.0]]).repeat(1, classes))
        self.compatibility = nn.Parameter(potts(classes, torch.get_default_device()))

    def forward(self, x: Tensor) -> Tensor | Output:
        found = self.net(x)
        if isinstance(found, Output):
            return found._replace(logits=self._refined(found.logits, x))
        return self._refined(found, x)

    def _refined(self, logits: Tensor, x: Tensor) -> Tensor:
        rounds = self.iterations[0] if self.training else self.iterations[1]
        pairs = zip(logits.float(), x, strict=True)
        return torch.stack([self._one(unary, image, rounds) for unary, image in pairs])

    def _one(self, unary: Tensor, image: Tensor, rounds: int) -> Tensor:
        alpha, beta, gamma = self.thetas
        where = places(image.shape[1:], [1] * (image.ndim - 1), image.device)
        appearance = torch.cat([where / alpha, image.flatten(1).T / beta], 1)
        kernels = [Gaussian(features, exact=len(where) == 1) for features in (appearance, where / gamma)]
        found = mean_field(unary.flatten(1).T, kernels, tuple(self.weights), self.compatibility, rounds)
        return found.T.reshape(unary.shape)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The inner network, and mean field behind it."""
    net = create(config.model, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels)
    thetas = config.theta_alpha, config.theta_beta, config.theta_gamma
    return CRFRNN(net, out_channels, thetas, (config.iterations, config.final_iterations))
