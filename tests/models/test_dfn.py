import pytest
import torch
from torch import nn

from medseg.losses import create_loss
from medseg.models import create_model, parameters


def refinement(inputs: int, channels: int = 512) -> int:
    return inputs * channels + 2 * channels * channels * 9 + 2 * channels


def test_weights():
    """By hand: the image's mean, and for each stage two residual refinements, an attention, and scores where asked for."""

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


def test_weights_of_the_border_network():
    """21 channels as in the authors' code: a refinement of each map, one after each sum, and scores of boundaries."""
    border = sum(refinement(channels, 21) for channels in (256, 512, 1024, 2048)) + 3 * refinement(21, 21) + 22
    ends = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}
    assert parameters("dfn", preset="border", **ends) == parameters("dfn", **ends) + border


@pytest.mark.parametrize("aux", [False, True])
def test_boundaries_are_there_in_training_and_leave_the_scores_alone(aux):
    net = create_model("dfn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", border=True, aux=aux)
    x = torch.randn(2, 1, 64, 48)
    output = net.train()(x)
    assert output.boundary.shape == (2, 1, 16, 12)
    assert len(output.auxiliary) == (3 if aux else 0)
    truth = torch.zeros(2, 64, 48, dtype=torch.long)
    truth[:, 20:40] = 1
    create_loss("dual_task")(output, truth).backward()
    assert all(weight.grad.isfinite().all() for weight in net.border.parameters())
    before = net.eval()(x)
    nn.init.zeros_(net.border.scores.weight)
    assert torch.equal(net(x), before)
