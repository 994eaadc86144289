import torch
from torch import nn

from medseg.models import Output, create_model
from medseg.models.guided_attention_net import Attention, Guided


def make(**options):
    torch.manual_seed(0)
    return create_model("guided_attention_net", spatial_dims=2, in_channels=1, out_channels=3, preset="tiny", **options)


def test_what_is_predicted_is_the_mean_of_the_refined_answers():
    net, x = make(), torch.rand(2, 1, 32, 40)
    output = net.train()(x)
    assert isinstance(output, Output)
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [(8, 10)] * 8
    mean = torch.stack(output.auxiliary[:4]).mean(0)
    expected = nn.functional.interpolate(mean, (32, 40), mode="bilinear")
    torch.testing.assert_close(output.logits, expected)


def test_without_supervision_no_score_of_the_unrefined_is_there():
    net = make(deep_supervision=False)
    assert not net.before
    assert isinstance(net.train()(torch.rand(2, 1, 32, 32)), torch.Tensor)


def test_a_shut_guide_lets_nothing_through():
    part = Guided(2, 4, "none").eval()
    scale, together = torch.rand(2, 1, 4, 8, 8)
    assert part(scale, together).any()
    nn.init.zeros_(part.guides[1][2][0].weight)
    nn.init.zeros_(part.guides[1][2][0].bias)
    assert not part(scale, together).any()


def test_attention_is_over_places_and_over_channels():
    """Places alone: what stands at one place reaches all others, beyond the convolutions, once attention counts."""
    attention = Attention(2, 2, 4, "none").double()
    x = torch.rand(1, 2, 16, 16, dtype=torch.float64, requires_grad=True)

    def reach():
        (slope,) = torch.autograd.grad(attention(x)[0, :, 0, 0].sum(), x)
        return int((slope[0].abs().sum((0, 1)) > 0).sum())

    assert reach() == 3  # two convolutions at a corner
    nn.init.ones_(attention.ways[0][1].alpha)
    assert reach() == 16
