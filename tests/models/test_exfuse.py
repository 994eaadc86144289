from itertools import product

import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters
from medseg.models.exfuse import Adjacent

STAGES = (256, 512, 1024, 2048)
DECODER = 21 * 9  # the paper's 189


def stage(inputs, outputs, blocks, groups=32):
    """A stage of a ResNeXt: the first block's way past is a convolution."""
    middle = outputs // 2
    block = middle * (middle // groups * 9) + middle * outputs + 2 * (2 * middle + outputs)
    first, others = inputs * middle + inputs * outputs + 2 * outputs, outputs * middle
    return blocks * block + first + (blocks - 1) * others


def test_weights():
    """By hand: the trunk, products with coarser maps, large kernels of 7, four steps of 4x4, and one of a 3x3 and sub-pixels."""
    trunk = 3 * 64 * 49 + 128
    trunk += sum(map(stage, (64, *STAGES), STAGES, (8, 8, 9, 8)))
    embeddings = sum((9 * coarse + 1) * fine for n, fine in enumerate(STAGES) for coarse in STAGES[n + 1 :])
    kernels = sum(2 * 7 * DECODER * (channels + DECODER) + 4 * DECODER for channels in STAGES)
    ups = 4 * DECODER**2 * 16 + (9 * DECODER + 1) * 4 * DECODER
    count = parameters("exfuse", spatial_dims=2, in_channels=3, out_channels=21)
    assert count == trunk + embeddings + kernels + ups == 107_359_872


@pytest.mark.parametrize("dims", [2, 3])
def test_scores_are_what_neighbours_say(dims):
    """A voxel that speaks for one neighbour in each of its channels is heard there, and nowhere else."""
    views, size = 3**dims, (7,) * dims
    x = torch.zeros(1, 2 * views, *size)
    x[(0, slice(views, None), *(3,) * dims)] = torch.arange(1.0, views + 1)
    y = Adjacent(3)(x)
    assert not y[0, 0].any()
    for view, offset in enumerate(product((-1, 0, 1), repeat=dims)):
        place = tuple(3 - step for step in offset)  # the channel of an offset is read at the voxel so far before it
        assert y[(0, 1, *place)] == pytest.approx((view + 1) / views)
    assert y.count_nonzero() == views


def test_voxels_at_the_edge_have_as_many_neighbours():
    assert torch.allclose(Adjacent(5)(torch.ones(1, 3 * 25, 4, 1)), torch.ones(1, 3, 4, 1))


def test_products_begin_with_the_fine_map_itself():
    net = create_model("exfuse", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    _, *maps = net.trunk(torch.randn(1, 1, 64, 64))
    assert net.embeddings[3]([maps[-1]]) is maps[-1]
    for n, embed in enumerate(net.embeddings):
        assert torch.corrcoef(torch.stack([embed(maps[n:]).flatten(), maps[n].flatten()]))[0, 1] > 0.8
        for conv in embed.convs:
            nn.init.zeros_(conv.weight)
        assert torch.equal(embed(maps[n:]), maps[n])


def test_auxiliary_scores_are_those_of_three_stages_and_of_the_first_step_up():
    net = create_model("exfuse", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    output = net(torch.randn(2, 1, 44, 36))
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [(11, 9), (6, 5), (3, 3), (3, 3)]
