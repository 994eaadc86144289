import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.models import _blocks


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_sizes_are_divided_rounding_up_and_multiplied(dims, stride):
    x = torch.randn(1, 2, *(7, 10, 1)[:dims])
    up = [-(-n // stride) for n in x.shape[2:]]
    for part in (
        _blocks.conv(dims, 2, 2, 3, stride),
        _blocks.strided(dims, 2, 2, stride),
        _blocks.max_pool(dims, stride),
        _blocks.mean_pool(dims, stride),
    ):
        assert list(part(x).shape[2:]) == up
    for kernel in (None, 3, 5):
        assert list(_blocks.transposed(dims, 2, 2, stride, kernel)(x).shape[2:]) == [stride * n for n in x.shape[2:]]


def test_blocks_that_reach_over_the_edge_repeat_it():
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 9]]]])
    assert _blocks.max_pool(2)(x).tolist() == [[[[5, 9]]]]
    assert _blocks.mean_pool(2)(x).tolist() == [[[[3, 6]]]]
    assert _blocks.mean_pool(2, (1, 2))(x).tolist() == [[[[1.5, 3], [4.5, 9]]]]


def test_numbers_of_an_axis():
    assert _blocks.ntuple(2, 3) == (2, 2, 2)
    assert _blocks.ntuple((1, 2), 2) == (1, 2)
    with pytest.raises(ConfigError, match=r"one number or 3 of them.*got \(1, 2\)"):
        _blocks.ntuple((1, 2), 3)


def test_join_crops_the_far_end():
    skip, x = torch.zeros(1, 1, 3, 3), torch.arange(16.0).reshape(1, 1, 4, 4)
    joined = _blocks.join(skip, x)
    assert torch.equal(joined[:, 1:], x[..., :3, :3])
    assert not joined[:, :1].any()


@pytest.mark.parametrize("size", [(5, 6), (5, 6, 3)], ids=["2d", "3d"])
def test_norms_equal_torch(size):
    x = 3 + 2 * torch.randn(4, 16, *size)
    rest = tuple(range(2, x.ndim))
    instance = (x - x.mean(rest, True)) / x.var(rest, False, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(_blocks.norm("instance", 16)(x), instance)
    torch.testing.assert_close(_blocks.norm("group", 16)(x), nn.GroupNorm(2, 16)(x))
    whole = (0, *rest)
    batch = (x - x.mean(whole, keepdim=True)) / x.var(whole, False, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(_blocks.norm("batch", 16)(x), batch)
    assert _blocks.norm("none", 16)(x) is x


def test_group_sizes_divide_the_channels():
    assert [16 // _blocks.norm("group", 16).num_groups, 12 // _blocks.norm("group", 12).num_groups] == [8, 6]
    assert _blocks.norm("group", 11).num_groups == 11


@pytest.mark.parametrize("name", ["instance", "group", "batch"])
def test_a_single_element_passes_a_norm(name):
    layer, x = _blocks.norm(name, 3).train(), torch.tensor([2.0, -1, 5]).reshape(1, 3, 1, 1, 1)
    if name == "group":
        layer = _blocks.norm(name, 11)
        x = torch.arange(11.0).reshape(1, 11, 1, 1)
    torch.testing.assert_close(layer(x), x, rtol=1e-4, atol=1e-4)


def test_running_figures_wait_for_more_than_one_element():
    layer = _blocks.norm("batch", 2).train()
    layer(torch.full((1, 2, 1, 1), 7.0))
    assert not layer.running_mean.any()
    layer(torch.full((2, 2, 1, 1), 7.0))
    assert layer.running_mean.tolist() == pytest.approx([0.7, 0.7])


def test_initial_weights_keep_the_scale():
    torch.manual_seed(0)
    net = nn.Sequential()
    for _ in range(8):
        net.append(_blocks.conv(2, 32, 32)).append(nn.ReLU())
    x = torch.randn(2, 32, 32, 32)
    y = _blocks.initialise(net)(x)
    assert 0.3 < y.square().mean().sqrt() / x.relu().square().mean().sqrt() < 3
    up = _blocks.initialise(nn.Sequential(_blocks.transposed(2, 32, 32)))
    assert up(x).std().item() == pytest.approx(x.std().item(), rel=0.15)
    assert not any(part.bias.any() for part in net if hasattr(part, "bias"))
