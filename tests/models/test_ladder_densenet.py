from itertools import pairwise

import pytest
import torch

from medseg.models import create_model, parameters
from medseg.models.ladder_densenet import Blend

TRUNKS = {
    "densenet121": (7_978_856 - 1_025_000, (256, 512, 1024), 1024),
    "densenet169": (12_484_480, (256, 512, 1280), 1664),
}


@pytest.mark.parametrize("preset", TRUNKS)
def test_weights(preset):
    """By hand: the trunk without its classifier, the bottom, three steps, scores with a bias.

    Widths (512 and 128 channels), the lateral 1x1 convolution to as many channels as come from below, and the 3x3 one of both side
    by side are those of the authors' published code for Cityscapes.
    """
    trunk, laterals, last = TRUNKS[preset]
    bottom = 512 * last + 2 * 512 + 9 * 128 * 512  # the normalisation before it is the trunk's
    steps = sum(2 * n + n * 128 + 2 * 256 + 9 * 256 * 128 for n in laterals)
    scores = 129 * 19
    expected = {False: trunk + bottom + steps + scores, True: trunk + bottom + steps + 2 * scores}
    for aux, count in expected.items():
        found = parameters("ladder_densenet", preset=preset, aux=aux, spatial_dims=2, in_channels=3, out_channels=19)
        assert found == count


def test_steps_go_from_block_to_block():
    net = create_model("ladder_densenet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    seen = []
    for step in net.steps:
        step.register_forward_hook(lambda _, given, found: seen.append((*(x.shape[2:] for x in given), found.shape)))
    net(torch.randn(1, 1, 64, 96))
    assert seen == [(a, b, (1, 8, *b)) for a, b in pairwise([(2, 3), (4, 6), (8, 12), (16, 24)])]


def test_a_step_blends_both_maps():
    step, x, lateral = Blend(2, 6, 4, "none"), torch.randn(1, 4, 3, 3), torch.randn(1, 6, 5, 6)
    both = step(x, lateral)
    assert not torch.allclose(step(x, 2 * lateral), both)
    assert not torch.allclose(step(2 * x, lateral), both)
    torch.nn.init.zeros_(step.lateral[2].weight)
    assert torch.equal(step(x, 2 * lateral), step(x, lateral))


def test_auxiliary_scores_are_those_of_the_bottom():
    net = create_model(
        "ladder_densenet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny", aux=True
    ).train()
    (level,) = net(torch.randn(1, 1, 33, 64, 40)).auxiliary
    assert level.shape == (1, 2, 2, 2, 2)
