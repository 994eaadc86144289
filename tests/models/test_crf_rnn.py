import pytest
import torch

from medseg.errors import ConfigError
from medseg.models import create_model, parameters, resolve


def made(**options):
    torch.manual_seed(0)
    return create_model("crf_rnn", spatial_dims=2, in_channels=1, out_channels=3, preset="tiny", **options).eval()


def test_it_adds_two_weights_a_class_and_their_compatibility():
    ends = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}
    assert parameters("crf_rnn", **ends) - parameters("fcn", **ends) == 2 * 21 + 21 * 21


def test_without_weights_it_is_the_inner_network():
    net, x = made(), torch.randn(1, 1, 9, 8, generator=torch.Generator().manual_seed(1))
    before = net(x)
    with torch.no_grad():
        net.weights.zero_()
    torch.testing.assert_close(net(x), net.net(x))
    assert not torch.allclose(before, net(x))


def test_rounds_differ_in_training():
    net = made(iterations=1, final_iterations=2)
    unary, image = torch.randn(3, 9, 8), torch.randn(1, 9, 8)
    once = net._one(unary, image, 1)
    assert not torch.allclose(once, net._one(unary, image, 2))
    seen = []
    net._one = lambda unary, image, rounds: seen.append(rounds) or unary
    net(image[None])
    net.train()(image[None])
    assert seen == [2, 1]


def test_any_network_may_be_inside():
    inner = resolve({"name": "crf_rnn", "model": {"name": "vnet", "preset": "tiny"}})["model"]
    assert inner == resolve({"name": "vnet", "preset": "tiny"})
    with pytest.raises(ConfigError, match="expected a network, got another crf_rnn"):
        resolve({"name": "crf_rnn", "model": {"name": "crf_rnn"}})


def test_whatever_the_inner_network_gives_beside_its_logits_comes_through():
    model = {"name": "crf_rnn", "model": {"name": "gated_scnn", "preset": "tiny"}, "theta_alpha": 20}
    net = create_model(model, spatial_dims=2, in_channels=1, out_channels=3)
    output = net.train()(torch.randn(2, 1, 16, 16))
    assert output.logits.shape == (2, 3, 16, 16)
    assert output.boundary.shape == (2, 1, 16, 16)
