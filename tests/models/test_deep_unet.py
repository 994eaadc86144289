from itertools import pairwise

import torch
from torch import nn

from medseg.models import create_model, parameters


def row(*widths):
    """3x3 convolutions with biases, scales and shifts."""
    return sum(9 * a * b + 3 * b for a, b in pairwise(widths))


def test_weights_of_the_authors_layers():
    """By hand: three convolutions, six blocks of 64 and 32 down, as many up on two maps, scores; in training of four levels."""
    expected = row(3, 32, 64, 32) + 6 * (row(32, 64, 32) + row(64, 64, 32)) + 33
    for aux, count in ((False, expected), (True, expected + 3 * 33)):
        assert parameters("deep_unet", aux=aux, spatial_dims=2, in_channels=3, out_channels=1) == count


def make(**options):
    return create_model("deep_unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", **options)


def test_blocks_that_add_nothing_leave_maxima_and_doublings():
    net = make(norm="none").eval()
    for block in (*net.downs, *net.ups):
        nn.init.zeros_(block[-2].weight)  # the last part is the normalisation that is none
    x = torch.rand(1, 1, 8, 8)
    seen = []
    net.scores.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    coarsest = nn.functional.max_pool2d(net.first(x).relu(), 4)
    torch.testing.assert_close(seen[0], coarsest.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_convolutions_come_before_their_normalisation():
    """As in the authors' code: a block is convolution, normalisation, rectifier, convolution, normalisation."""
    kinds = [type(part).__name__.strip("_") for part in make().ups[0]]
    assert kinds == ["Conv2d", "BatchNorm", "ReLU", "Conv2d", "BatchNorm"]


def test_auxiliary_scores_are_those_of_the_next_coarser_levels():
    net = make(strides=(2,) * 5, aux=True).train()
    sizes = [tuple(level.shape[2:]) for level in net(torch.rand(2, 1, 33, 64)).auxiliary]
    assert sizes == [(17, 32), (9, 16), (5, 8)]
