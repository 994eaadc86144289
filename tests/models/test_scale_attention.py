import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters


@pytest.mark.parametrize(("preset", "scales"), [("vgg16", 3), ("two", 2)])
def test_weights(preset, scales):
    """DeepLab v1 (20,505,429), once for all sizes; the attention's 512 channels see the maps of all."""
    attention = scales * 1024 * 512 * 9 + 512 + 513 * scales
    found = parameters("scale_attention", preset=preset, spatial_dims=2, in_channels=3, out_channels=21)
    assert found == 20_505_429 + attention


def test_even_weights_give_the_mean_of_the_scores():
    net = create_model(
        "scale_attention", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True, dropout=0
    )
    nn.init.zeros_(net.attention[-1].weight)
    logits, scores, _ = net.train()(torch.randn(1, 1, 8, 8))  # maps of one element, of each size
    torch.testing.assert_close(logits[:, :, :1, :1], sum(scores) / 2)


def test_of_one_size_it_is_deeplab():
    ends = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "depth": 8, "width": 1 / 16, "hidden": 8, "rate": 2}
    ours = create_model("scale_attention", scales=(1.0,), channels=8, **ends).eval()
    deeplab = create_model("deeplab_v1", **ends).eval()
    for own, theirs in zip(ours.parameters(), deeplab.parameters(), strict=False):
        own.data.copy_(theirs.data)
    x = torch.randn(1, 1, 40, 24)
    torch.testing.assert_close(ours(x), deeplab(x))
