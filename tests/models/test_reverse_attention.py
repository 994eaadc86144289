import pytest
import torch

from medseg.models import create_model, parameters


@pytest.mark.parametrize(("preset", "trunk"), [("resnet101", 42_500_160), ("resnet50", 23_508_032)])
def test_weights(preset, trunk):
    """Derived: a 3x3 convolution with bias for each branch; attention has no weights."""
    found = parameters("reverse_attention", preset=preset, spatial_dims=2, in_channels=3, out_channels=21)
    assert found == trunk + 2 * (2048 * 9 + 1) * 21


def test_the_second_branch_is_not_heard_where_the_first_is_sure():
    net = create_model("reverse_attention", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    with torch.no_grad():
        for branch, bias in ((net.direct, torch.tensor([50.0, 0.0])), (net.reverse, torch.tensor([3.0, 3.0]))):
            branch.weight.zero_()
            branch.bias.copy_(bias)
    logits = net(torch.randn(1, 1, 4, 4))
    torch.testing.assert_close(logits[0, :, 0, 0], torch.tensor([50.0, -1.5]))
