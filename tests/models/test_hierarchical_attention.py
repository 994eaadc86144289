import torch
from torch import nn

from medseg.models import create_model, parameters
from medseg.models.hierarchical_attention import HierarchicalAttention, Seen


def test_weights():
    """HRNet-W48 with object context (70,372,678), two 3x3 units of 256 and a 1x1 convolution for the share."""
    attention = (512 * 256 * 9 + 512) + (256 * 256 * 9 + 512) + 256
    for preset in ("w48", "w48_chain"):
        found = parameters("hierarchical_attention", preset=preset, spatial_dims=2, in_channels=3, out_channels=19)
        assert found == 70_372_678 + attention


class Fixed(nn.Module):
    """Scores of the image's own size, and one share everywhere."""

    def forward(self, x):
        scores = torch.full_like(x, float(x.shape[-1]))
        return Seen(scores, torch.full_like(x, 0.25), scores)


def test_the_chain_by_hand():
    """Sizes of 4, 8 and 16: a quarter of 4, and three of (a quarter of 8 and three of 16): smaller sizes decide first."""
    net = HierarchicalAttention(Fixed(), (0.5, 1.0, 2.0), aux=False)
    expected = torch.full((1, 1, 8, 8), 0.25 * 4 + 0.75 * (0.25 * 8 + 0.75 * 16))
    torch.testing.assert_close(net(torch.zeros(1, 1, 8, 8)), expected)
    output = HierarchicalAttention(Fixed(), (0.5, 1.0, 2.0), aux=True).train()(torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(output.auxiliary, (expected,))


def test_a_small_size_that_is_sure_of_itself_decides_alone():
    net, x = HierarchicalAttention(Fixed(), (0.5, 1.0, 2.0), aux=False), torch.zeros(1, 1, 8, 8)
    shares = [torch.ones(1, 1, 4, 4), torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, 1, 16, 16)]
    maps = [torch.full_like(share, value) for share, value in zip(shares, (1.0, 2.0, 3.0), strict=True)]
    assert torch.equal(net.chained(shares, maps), torch.ones_like(x))


def test_coarse_scores_are_auxiliary():
    net = create_model(
        "hierarchical_attention", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True
    ).train()
    _, auxiliary, _ = net(torch.randn(1, 1, 32, 16))
    assert [tuple(level.shape[2:]) for level in auxiliary] == [(8, 4)]
