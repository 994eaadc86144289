import pytest
import torch
from torch import nn

from medseg.models import _blocks
from medseg.models._ushape import Levels, SupervisedU, UShape, convs, residual, u_shape


def make(dims=2):
    levels = Levels(widths=(2, 3, 4), strides=(2, 3))
    return u_shape(
        levels,
        dims,
        1,
        2,
        unit=lambda a, b: _blocks.conv(dims, a, b, 1),
        up=lambda a, b, stride: _blocks.transposed(dims, a, b, stride),
    )


def test_widths_double_at_each_join_and_the_head_sees_the_finest():
    net = make()
    ends = [(part.in_channels, part.out_channels) for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert ends == [(1, 2), (2, 3), (3, 4), (6, 3), (4, 2), (2, 2)]


@pytest.mark.parametrize("size", [(12, 18), (7, 5), (1, 1)], ids=str)
def test_sizes_of_the_levels_round_up(size):
    net, seen = make(), []
    for stage in net.encoder:
        stage.register_forward_hook(lambda _, inputs, y: seen.append(tuple(y.shape[2:])))
    assert net(torch.rand(1, 1, *size)).shape[2:] == size
    halves = tuple(-(-n // 2) for n in size)
    assert seen == [size, halves, tuple(-(-n // 3) for n in halves)]


def test_a_skip_passes_its_module():
    shut = nn.Sequential(_blocks.conv(2, 1, 1, 1, bias=False))
    nn.init.zeros_(shut[0].weight)
    down = nn.Sequential(_blocks.max_pool(2))
    net = UShape([nn.Identity(), down], [_blocks.upsample(2)], [nn.Identity()], nn.Identity(), [shut])
    x = torch.rand(1, 1, 4, 4)
    y = net(x)
    assert not y[:, 0].any()
    assert torch.equal(y[:, 1:], _blocks.upsample(2)(down(x)))


def test_a_row_is_convolution_norm_rectifier():
    row = convs(3, 2, 4, 6, kernel=(3, 3, 1), norm="none", bias=False)
    assert [type(part).__name__ for part in row] == ["Conv3d", "Identity", "ReLU"] * 2
    assert (row[3].in_channels, row[3].out_channels, row[3].kernel_size, row[3].bias) == (4, 6, (3, 3, 1), None)


def test_what_passes_a_residual_unit_is_a_mean():
    unit = residual(2, 1, 1, 3, 2, norm="none", activation="relu", bias=True)
    for weight in unit.body.parameters():
        nn.init.zeros_(weight)
    x = torch.rand(1, 1, 6, 4)
    torch.testing.assert_close(unit(x), nn.functional.avg_pool2d(x, 2))


def test_heads_begin_with_the_finest_and_coarser_ones_answer_in_training_alone():
    downs = [nn.Identity(), _blocks.max_pool(2), _blocks.max_pool(2)]
    heads = [_blocks.conv(2, channels, 1, 1) for channels in (3, 2)]
    net = SupervisedU(downs, [_blocks.upsample(2)] * 2, [nn.Identity()] * 2, heads)
    x = torch.rand(1, 1, 7, 5)
    (level,) = net.train()(x).auxiliary
    assert level.shape == (1, 1, 4, 3)
    assert net.eval()(x).shape == x.shape
