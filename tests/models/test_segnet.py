import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights_and_convolutions():
    assert parameters("segnet", spatial_dims=2, in_channels=3, out_channels=21) == 29_455_125
    with torch.device("meta"):
        net = create_model("segnet", spatial_dims=2, in_channels=3, out_channels=21)
    for half in (net.encoder, net.decoder):
        assert sum(isinstance(part, nn.Conv2d) for part in half.modules()) == 13
