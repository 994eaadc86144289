import pytest
import torch

from medseg.models import create_model, parameters


@pytest.mark.parametrize(("preset", "expected"), [("w18", 9_641_119), ("w48", 65_859_379)])
def test_weights(preset, expected):
    assert parameters("hrnet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19) == expected


@pytest.mark.parametrize(("preset", "millions"), [("w18_small_v1", 1.5), ("w18_small_v2", 3.9)])
def test_weights_of_the_small_ones(preset, millions):
    """The table of the authors' code for segmentation has two digits."""
    found = parameters("hrnet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19)
    assert round(found / 1e6, 1) == millions


def test_all_streams_reach_the_scores():
    net = create_model("hrnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    joined = []
    net.head[0].register_forward_hook(lambda module, inputs, y: joined.append((*inputs[0], y)))
    net(torch.randn(1, 1, 64, 96))
    *maps, whole = joined[0]
    assert whole.shape == (1, sum(net.trunk.channels), 16, 24)
    torch.testing.assert_close(whole[:, : net.trunk.channels[0]], maps[0])
    coarsest = whole[:, -net.trunk.channels[-1] :]
    torch.testing.assert_close(coarsest, torch.nn.functional.interpolate(maps[-1], (16, 24), mode="bilinear"))
