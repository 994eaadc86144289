import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights():
    """By hand: the image's mean, and for each stage two residual refinements, an attention, and scores where asked for."""

    def refinement(inputs: int) -> int:
        return inputs * 512 + 2 * 512 * 512 * 9 + 2 * 512

    attention = 1024 * 512 + 512 + 512 * 512 + 512
    stages = sum(refinement(channels) + refinement(512) + attention for channels in (256, 512, 1024, 2048))
    scores = 512 * 21 + 21
    expected = 42_500_160 + 2048 * 512 + 2 * 512 + stages + scores
    found = [parameters("dfn", aux=aux, spatial_dims=2, in_channels=3, out_channels=21) for aux in (False, True)]
    assert found == [expected, expected + 3 * scores]


def test_each_stage_is_scored_in_training():
    net = create_model("dfn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    output = net(torch.randn(1, 1, 64, 96))
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [(8, 12), (4, 6), (2, 3)]


def test_channels_that_get_no_weight_leave_the_coarse_map():
    net = create_model("dfn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    part, coarse = net.attention[0], torch.randn(1, 10, 5, 4)
    nn.init.constant_(part.weigh[2].bias, -1e4)
    torch.testing.assert_close(part(torch.randn(1, 10, 5, 4), coarse), coarse)
