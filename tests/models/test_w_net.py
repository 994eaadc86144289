import torch
from torch import nn

from medseg.models import Output, create_model


def test_weights_of_the_little_one(count):
    """Galdran et al.: 34,201 for a U that sees three channels, and 34,281 for one that sees the first one's mask too."""
    assert count("w_net", "little", 2, 3, 1) == 34_201 + 34_281 == 68_482


def test_the_second_sees_image_and_proposal():
    net = create_model("w_net", spatial_dims=2, in_channels=2, out_channels=3, preset="tiny").eval()
    x = torch.rand(1, 2, 9, 7)
    torch.testing.assert_close(net(x), net.second(torch.cat((x, net.first(x)), 1)))
    output = net.train()(x)
    assert isinstance(output, Output)
    assert [level.shape for level in output.auxiliary] == [output.logits.shape]


def test_convolutions_of_the_paper_are_separable_but_for_the_outermost():
    with torch.device("meta"):
        net = create_model("w_net", spatial_dims=2, in_channels=3, out_channels=2)
    plain = [part for part in net.first.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert [part.in_channels for part in plain if part.groups == 1] == [3, 64, 64, 128, 64]
    assert all(part.groups in (1, part.in_channels) for part in plain)
