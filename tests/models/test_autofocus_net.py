import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.models import create_model
from medseg.models.autofocus_net import Autofocus, Config

CONFIG = Config(widths=(3, 3), autofocus=1, dilations=(1, 3), norm="none")


def focused_on(chosen):
    """A layer that has chosen one of its dilations everywhere."""
    layer = Autofocus(2, 1, 1, CONFIG)
    nn.init.ones_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    nn.init.zeros_(layer.attention[-1].weight)
    with torch.no_grad():
        layer.attention[-1].bias.copy_(1000.0 * nn.functional.one_hot(torch.tensor(chosen), 2))
    return layer


@pytest.mark.parametrize(("chosen", "places"), [(0, [6, 7, 8]), (1, [4, 7, 10])])
def test_a_chosen_dilation_is_that_convolution(chosen, places):
    impulse = torch.zeros(1, 1, 15, 15)
    impulse[..., 7, 7] = 1
    answer = focused_on(chosen)(impulse)
    assert (answer[0, 0].sum(0) > 0).nonzero().flatten().tolist() == places


def test_undecided_attention_is_the_mean():
    layer = Autofocus(2, 2, 3, CONFIG)
    nn.init.zeros_(layer.attention[-1].weight)
    nn.init.zeros_(layer.attention[-1].bias)
    x = torch.rand(1, 2, 9, 9)
    expected = (layer.at(x, 1) + layer.at(x, 3)) / 2
    assert (expected < 0).any()  # it is rectified with the way past, or where the next layer begins
    torch.testing.assert_close(layer(x), expected)


def test_dilations_share_one_kernel_and_have_norms_of_their_own(count):
    """A layer more of autofocus costs its attention and three normalisations more."""
    attention = 27 * 50 * 25 + 25 + 25 * 4 + 4
    assert count("autofocus_net", "afn1", 3, 4, 5) - count("autofocus_net", "basic", 3, 4, 5) == attention + 3 * 2 * 50


@pytest.mark.parametrize("preset", ["basic", "afn1", "afn6"])
def test_units_of_the_authors_code(preset):
    """Two layers in a row; then three residual units, of which the first and the last widen by a normalised 1x1 convolution."""
    with torch.device("meta"):
        net = create_model("autofocus_net", preset=preset, spatial_dims=3, in_channels=4, out_channels=5)
    _, first, _, second, *units, scores = net
    assert isinstance(first, nn.ReLU)
    assert isinstance(second, nn.ReLU)
    assert [isinstance(unit.past, nn.Identity) for unit in units] == [False, True, False]
    assert [len(unit.past) for unit in (units[0], units[2])] == [2, 2]
    assert all(isinstance(part, nn.ReLU) for unit in units for part in (unit.body[1], unit.end))
    assert scores.kernel_size == (1, 1, 1)


def test_more_layers_than_there_are_cannot_focus():
    with pytest.raises(ConfigError, match="autofocus at most as many; got"):
        create_model("autofocus_net", spatial_dims=2, in_channels=1, out_channels=2, autofocus=9)
