import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters


@pytest.mark.parametrize(
    ("preset", "aux", "expected"),
    [("resnet50", True, 47_462_651), ("resnet101", True, 66_454_779), ("resnet50", False, 47_462_651 - 2 * 513 * 19)],
)
def test_weights(preset, aux, expected):
    """ResNet-50 23,508,032; two 3x3 units of 2048 to 512, two of 512 to 512; attention 328,322; three times 513 scores."""
    assert parameters("danet", preset=preset, aux=aux, spatial_dims=2, in_channels=3, out_channels=19) == expected


def test_both_attentions_are_summed():
    net = create_model("danet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", dropout=0)
    for score in (net.scores[-1], *(alone[-1] for alone in net.alone)):
        nn.init.ones_(score.weight)
        nn.init.zeros_(score.bias)
    logits, alone, _ = net.train()(torch.randn(2, 1, 8, 8))  # a map of one element: logits are constant over the image
    torch.testing.assert_close(logits[:, :, :1, :1], sum(alone))
