import pytest
import torch

from medseg.models import create_model, parameters

# 3x3 units of 2048 to 512 and of 512 to 256, the 1x1 convolutions about the bases, 19 scores.
HEAD = (2048 * 512 * 9 + 1024) + (512 * 512 + 512) + (512 * 512 + 1024) + (512 * 256 * 9 + 512) + 257 * 19


@pytest.mark.parametrize(("preset", "trunk"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_weights(preset, trunk):
    """Derived from figure 2 and 4.1; the bases are found, not learned."""
    assert parameters("emanet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19) == trunk + HEAD


def test_bases_move_in_training_only():
    net = create_model("emanet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    mu, x = net.head[2].mu, torch.randn(2, 1, 32, 32)
    before = mu.clone()
    net.eval()(x)
    assert torch.equal(mu, before)
    net.train()(x)
    assert not torch.equal(mu, before)
