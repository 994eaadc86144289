import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters
from medseg.models.lrr import Reconstruction, near_boundary

VGG = 14_714_688 + (512 * 4096 * 49 + 4096) + (4096 * 4096 + 4096)
PATTERNS = 21 * 10 * 8 * 8


@pytest.mark.parametrize(
    ("preset", "trunk", "maps"),
    [
        ("4x", VGG, (4096, 512, 512, 256)),
        ("8x", VGG, (4096, 512, 512)),
        ("32x", VGG, (4096,)),
        ("resnet101", 42_500_160, (2048, 1024, 512, 256)),
    ],
)
def test_weights(preset, trunk, maps):
    """By hand from the authors' code: a 5x5 convolution to 10 weights a class, and 8x8 patterns, for each map."""
    count = parameters("lrr", preset=preset, spatial_dims=2, in_channels=3, out_channels=21)
    assert count == trunk + sum(210 * (25 * channels + 1) + PATTERNS for channels in maps)


def test_weights_of_the_default():
    assert parameters("lrr", spatial_dims=2, in_channels=3, out_channels=21) == 162_539_144


@pytest.mark.parametrize("dims", [2, 3])
def test_a_class_is_made_of_its_own_patterns(dims):
    """The first pattern interpolates; what weighs those of one class leaves the others alone."""
    level = Reconstruction(dims, 1, 3, 4)
    nn.init.zeros_(level.weigh.weight)
    nn.init.zeros_(level.weigh.bias)
    level.weigh.bias.data[4] = 2  # the first pattern of class 1
    y = level(torch.zeros(1, 1, *(3,) * dims))
    assert y.shape == (1, 3, *(12,) * dims)
    assert not y[:, [0, 2]].any()
    inner = (slice(None), 1, *(slice(2, 10),) * dims)
    torch.testing.assert_close(y[inner], torch.ones_like(y[inner]))  # 2 / sqrt(4 patterns)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_boundary_is_wide_and_the_inside_is_none(dims):
    scores = torch.zeros(1, 2, *(20,) * dims)
    scores[:, 1, :10], scores[:, 1, 10:] = 50, -50
    expected = torch.zeros_like(scores)
    expected[:, :, 6:14] = 1
    torch.testing.assert_close(near_boundary(scores), expected)
    wild = torch.randn(1, 3, *(12,) * dims)
    p, pool = wild.softmax(1), nn.MaxPool2d if dims == 2 else nn.MaxPool3d
    torch.testing.assert_close(near_boundary(wild), pool(9, 1, 4)(p) + pool(9, 1, 4)(-p))


def test_finer_maps_change_nothing_where_the_coarse_scores_are_sure():
    net = create_model("lrr", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    nn.init.zeros_(net.levels[0].patterns)
    x = torch.randn(1, 1, 40, 24)
    undecided = net(x)
    assert [level.shape[2:] for level in undecided.auxiliary] == [(20, 12), (10, 6), (5, 3)]
    assert undecided.logits.std() == 0  # no class is likelier anywhere, so there is nothing to refine
    net.levels[0].patterns.data.normal_()
    refined = net(x)
    coarse = torch.nn.functional.interpolate(refined.auxiliary[0], size=(40, 24), mode="bilinear")
    finest = net.levels[-1](net.trunk(x)[1])
    torch.testing.assert_close(refined.logits, coarse + near_boundary(coarse) * finest)


@pytest.mark.parametrize("size", [(33, 20), (5, 1, 11)], ids=str)
def test_a_trunk_with_hidden_convolutions(size):
    net = create_model(
        "lrr",
        preset="tiny",
        trunk="vgg8",
        width=1 / 16,
        hidden=6,
        spatial_dims=len(size),
        in_channels=1,
        out_channels=2,
    )
    assert net(torch.randn(1, 1, *size)).shape == (1, 2, *size)
