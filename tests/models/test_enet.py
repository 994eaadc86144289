import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.models import create_model, parameters


def test_weights():
    assert parameters("enet", spatial_dims=2, in_channels=3, out_channels=12) == 350_670


def test_sizes_and_channels_of_table_1():
    with torch.device("meta"):
        net = create_model("enet", spatial_dims=2, in_channels=3, out_channels=12)
        shapes = []
        for stage in (net.first, *net.encoder, *net.decoder, net.head):
            stage.register_forward_hook(lambda _, inputs, y: shapes.append(tuple(y.shape[1:])))
        net(torch.zeros(1, 3, 512, 512))
    expected = [(16, 256), (64, 128), (128, 64), (64, 128), (16, 256), (12, 512)]
    assert shapes == [(channels, size, size) for channels, size in expected]


def test_an_asymmetric_bottleneck_sees_a_whole_cube():
    net = create_model("enet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny")
    lines = [part.kernel_size for part in net.encoder[1][2].modules() if isinstance(part, nn.Conv3d)]
    assert lines == [(1, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5), (1, 1, 1)]


def test_dilations_of_a_round():
    net = create_model("enet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    convs = [part for part in net.encoder[1].modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert [conv.dilation[0] for conv in convs] == [1, 2, 4, 1, 8, 16]


def test_an_image_of_many_channels_keeps_them():
    net = create_model("enet", spatial_dims=2, in_channels=30, out_channels=2, preset="tiny")
    assert net(torch.randn(2, 30, 16, 16)).shape == (2, 2, 16, 16)


def test_channels_that_fall_are_refused():
    with pytest.raises(ConfigError, match=r"^model.*do not fall.*$"):
        create_model("enet", spatial_dims=2, in_channels=1, out_channels=2, channels=(16, 64, 32))
