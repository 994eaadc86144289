import pytest
import torch
from torch import nn

from medseg.models import create_model


@pytest.mark.parametrize(("preset", "millions"), [("56", 1.4), ("67", 3.5), ("103", 9.4)])
def test_weights_and_convolutions_of_the_paper(preset, millions):
    """The paper counts running figures too. It says 1.5 for the smallest, whose layers by its own rule have 1.4."""
    with torch.device("meta"):
        net = create_model("fc_densenet", spatial_dims=2, in_channels=3, out_channels=11, preset=preset)
    running = sum(part.running_mean.numel() * 2 for part in net.modules() if hasattr(part, "running_mean"))
    weights = sum(weight.numel() for weight in net.parameters())
    assert sum(isinstance(part, nn.modules.conv._ConvNd) for part in net.modules()) == int(preset)
    assert (weights + running) / 1e6 == pytest.approx(millions, abs=0.05)
    if preset == "103":
        assert weights == 9_322_091


def test_channels_after_each_block_of_103():
    """Table 2 of the paper, but for its printed 880 and 578, which its own rule makes 896 and 576."""
    with torch.device("meta"):
        net = create_model("fc_densenet", spatial_dims=2, in_channels=3, out_channels=11)
        widths, new = [], []
        for block in (*net.encoder, net.bottleneck, *net.decoder):
            block.register_forward_hook(lambda _, inputs, y: widths.append(inputs[0].shape[1] + y.shape[1]))
        for up in net.ups:
            up.register_forward_hook(lambda _, inputs, y: new.append((inputs[0].shape[1], y.shape[1])))
        net(torch.zeros(1, 3, 64, 64))
    assert widths == [112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256]
    assert new == [(n, n) for n in (240, 192, 160, 112, 80)]  # upward go the new maps alone: layers times 16
    assert net.head.in_channels == 256


def test_a_layer_sees_all_earlier_maps():
    net = create_model("fc_densenet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    block = net.bottleneck
    x = torch.randn(1, block.layers[0][2].in_channels, 4, 4)
    first = block.layers[0](x)
    second = block.layers[1](torch.cat((x, first), 1))
    assert torch.equal(block(x), torch.cat((first, second), 1))


def test_the_step_up_puts_element_n_at_2n():
    net = create_model("fc_densenet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    up = net.ups[-1]
    with torch.no_grad():
        up.weight.zero_()[:, :, 1, 1] = torch.eye(up.in_channels)
    x = torch.randn(1, up.in_channels, 5, 4)
    y = up(x)
    assert y.shape[2:] == (10, 8)
    assert torch.equal(y[..., ::2, ::2], x)


def test_dropout_of_single_values():
    net = create_model("fc_densenet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    rates = {part.p for part in net.modules() if isinstance(part, nn.Dropout)}
    assert rates == {0.2}
