import torch
from torch import nn

from medseg.models import Output, create_model, parameters
from medseg.models.guided_attention_net import Attention, Refinement, guide


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


def unit(inputs, outputs, kernel=3):
    """With a normalisation and a rectifier of one slope."""
    return inputs * outputs * kernel**2 + 2 * outputs + 1


def test_weights_of_the_authors_layers():
    """By hand: ResNeXt-101, four scales, what joins them, two guides and eight refinements, scores before and after.

    Convolutions before a normalisation have no bias here, but for the guides'.
    """

    def row(inputs, outputs):
        return 9 * (inputs + outputs) * outputs + 2 * 3 * outputs

    trunk = 44_177_704 - 2_049_000
    scales = sum(unit(width, 64, 1) for width in (256, 512, 1024, 2048))
    together = unit(256, 64) + unit(64, 64) + unit(64, 64, 1)
    down = row(128, 256) + row(256, 512)
    up = row(512, 256) + 4 * 256 * 256 + 256 + row(256, 128) + 4 * 128 * 128 + 128
    place = 2 * (64 * 8 + 8) + 64 * 64 + 64 + 1
    attention = 2 * (unit(128, 64) + unit(64, 64)) + place + 1
    refinement = attention + 9 * 128 * 64 + 64 + 64 * 64 + 64
    expected = trunk + scales + together + 2 * (down + up) + 8 * refinement + 8 * 65 * 5
    assert parameters("guided_attention_net", spatial_dims=2, in_channels=3, out_channels=5) == expected


def test_a_shut_guide_lets_nothing_through():
    part = Refinement(2, 4, "none").eval()
    nn.init.zeros_(part.mix.bias)
    nn.init.zeros_(part.guided.bias)
    seen = torch.rand(1, 8, 8, 8)
    assert part(seen, seen).any()
    assert not part(seen, torch.zeros_like(seen)).any()


def test_a_guide_covers_odd_sizes():
    assert guide(2, 6, 2, "batch")(torch.rand(2, 6, 9, 5)).shape == (2, 6, 12, 8)


def test_the_second_round_sees_all_scales_weighted_by_the_first():
    net = make().eval()
    together, seen = [], []
    net.together.register_forward_hook(lambda _, inputs, y: together.append(y))
    for refinements in net.rounds:
        refinements[0].register_forward_hook(lambda _, inputs, y: seen.append((inputs[0].chunk(2, dim=1), y)))
    net(torch.rand(1, 1, 32, 40))
    ((scale, first), refined), ((same, second), _) = seen
    assert torch.equal(same, scale)
    assert torch.equal(first, together[0])
    torch.testing.assert_close(second, refined * first)


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
