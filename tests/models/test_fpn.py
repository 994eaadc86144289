import torch
from torch import nn

from medseg.models import create_model, parameters
from medseg.models._pyramids import FeaturePyramid
from medseg.models.fpn import Ascent


def test_weights():
    """By hand: trunk, laterals and smoothing with biases, seven units on the way up, scores. OpenMMLab's table has 28.5 M."""
    laterals = sum(channels * 256 + 256 for channels in (256, 512, 1024, 2048))
    ascent = 4 * 256 * 128 * 9 + 3 * 128 * 128 * 9 + 7 * 2 * 128
    expected = 23_508_032 + laterals + 4 * (256 * 256 * 9 + 256) + ascent + 128 * 19 + 19
    assert parameters("fpn", spatial_dims=2, in_channels=3, out_channels=19) == expected == 28_478_675


def test_a_pyramid_adds_from_the_coarsest_to_the_finest():
    pyramid = FeaturePyramid([nn.Identity()] * 3, [nn.Identity()])
    maps = [torch.full((1, 1, size, size), 10.0**n) for n, size in enumerate((9, 8, 4, 2))]  # the finest is not used
    assert [float(map_.mean()) for map_ in pyramid(maps)] == [1110.0, 1100.0, 1000.0]


def test_maps_go_up_in_steps_of_two():
    seen = []

    class Size(nn.Module):
        def forward(self, x):
            seen.append(x.shape[2])
            return x

    maps = [torch.ones(1, 1, size, size) for size in (16, 8, 4, 2)]
    total = Ascent([[Size() for _ in range(max(level, 1))] for level in range(4)])(maps)
    assert seen == [16, 8, 4, 8, 2, 4, 8]
    assert torch.equal(total, torch.full((1, 1, 16, 16), 4.0))


def test_units_on_the_way_up():
    with torch.device("meta"):
        net = create_model("fpn", spatial_dims=3, in_channels=1, out_channels=2)
    assert [len(path) for path in net.head[1].paths] == [1, 1, 2, 3]
