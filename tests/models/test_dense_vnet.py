import pytest
import torch

from medseg.models import create_model
from medseg.models._dense_v import DenseV, Encoder, _BatchwiseDropout


def test_channels_of_the_stacks():
    """24 + 1 grow by 5 layers of 4, then 24 by 10 of 8, then 24 by 10 of 16; sides of 12, 24 and 24."""
    with torch.device("meta"):
        encoder = Encoder(DenseV(), 3, 1)
        seen = []
        for stack in encoder.stacks:
            stack.register_forward_hook(lambda _, inputs, y: seen.append((32 // y.shape[2], y.shape[1])))
        small, sides = encoder(torch.zeros(1, 1, 32, 32, 32))
    assert seen == [(2, 45), (4, 104), (8, 184)]
    assert small.shape[2:] == (16, 16, 16)
    assert [side.shape[1] for side in sides] == [12, 24, 24]


def test_weights(count):
    """By hand from NiftyNet's layers: no convolution before a normalisation has a bias."""

    def unit(inputs, outputs, edge=3):
        return inputs * outputs * edge**3 + 2 * outputs

    def stack(inputs, growth, layers):
        return sum(unit(inputs + n * growth, growth) for n in range(layers))

    stacks = stack(25, 4, 5) + stack(24, 8, 10) + stack(24, 16, 10)
    steps = unit(1, 24, 5) + unit(45, 24) + unit(104, 24)
    sides = unit(45, 12) + unit(104, 24) + unit(184, 24)
    head = (1 + 12 + 24 + 24) * 2 * 27 + 2
    assert count("dense_vnet", "paper", 3, 1, 2) == 2 + stacks + steps + sides + head == 866_978


def test_the_prior_is_a_logit_of_the_place():
    net = create_model("dense_vnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", prior=2).eval()
    assert not net.prior.any()
    x = torch.rand(1, 1, 6, 8)
    before = net(x)
    with torch.no_grad():
        net.prior[0, 1, :, 0] = 3.0
    change = net(x) - before
    assert change[:, 0].abs().max() < 1e-5
    torch.testing.assert_close(change[0, 1, :, 0], torch.full((6,), 3.0))
    assert change[0, 1, :, -1].abs().max() < 1e-5
    assert (change[0, 1, 0].diff() <= 1e-5).all()


def test_without_a_prior_there_is_none(count):
    assert count("dense_vnet", "prior", 3, 1, 9) - count("dense_vnet", "paper", 3, 1, 9) == 9 * 12**3


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_a_whole_batch_goes_without_the_same_channels(rate):
    layer, x = _BatchwiseDropout(rate).train(), torch.ones(3, 400, 2, 2)
    y = layer(x)
    assert torch.equal(y, y[:1].expand_as(y))
    assert (y[0, :, 0, 0] == 0).float().mean().item() == pytest.approx(rate, abs=0.08)
    assert y.max().item() == pytest.approx(1 / (1 - rate))
    assert torch.equal(layer.eval()(x), x)
