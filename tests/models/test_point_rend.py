import pytest
import torch

from medseg.models import create_model, parameters
from medseg.models._resizing import resize_like
from medseg.models.point_rend import _drawn, centres, sampled


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_are_those_of_deeplab_and_of_the_head(dims):
    """Fine features of 256 channels and 21 scores enter, three layers of 256 each see the scores again."""
    ends = {"spatial_dims": dims, "in_channels": 3, "out_channels": 21}
    head = 3 * ((256 + 21) * 256 + 256) + (256 + 21) * 21 + 21
    assert parameters("point_rend", **ends) == parameters("deeplab_v3", **ends) + head


@pytest.mark.parametrize("size", [(5, 7), (4, 3, 5), (1, 6)], ids=str)
def test_points_are_read_as_maps_are_resized(size):
    x, finer = torch.randn(2, 3, *size), [2 * n + 1 for n in size]
    expected = resize_like(x, torch.empty(1, 1, *finer)).flatten(2)
    everywhere = torch.arange(expected.shape[2]).repeat(2, 1)
    torch.testing.assert_close(sampled(x, centres(everywhere, finer)), expected)


def test_the_least_sure_are_drawn():
    logits = torch.zeros(1, 2, 10, 10)
    logits[:, 0] = 5
    logits[:, 0, :, :5] = 0.1
    drawn = _drawn(logits, 400)
    unsure = (drawn % 10 < 5).double().mean()
    assert 0.8 < unsure < 1  # 0.75 that were chosen, and half of the random ones


@pytest.mark.parametrize("training", [False, True])
def test_only_asked_voxels_are_the_heads(training):
    torch.manual_seed(0)
    net = create_model(
        "point_rend", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", stride=8, points=8, dropout=0
    ).eval()
    net.training = training  # of itself alone: the trunk's normalisation keeps its figures
    with torch.no_grad():
        net.head.scores.weight.zero_()
        net.head.scores.bias.copy_(torch.tensor([30.0, -30.0]))
    asked = net(torch.randn(1, 1, 32, 24))[0, 0].eq(30).sum()
    assert 0 < asked <= (4 * 3 if training else 3 * 4 * 3)
    assert training or asked >= 4 * 3
