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
    torch.testing.assert_close(layer(x), (layer.at(x, 1).relu() + layer.at(x, 3).relu()) / 2)


def test_dilations_share_one_kernel_and_have_norms_of_their_own(count):
    """A layer more of autofocus costs its attention and three normalisations more."""
    attention = 27 * 50 * 25 + 25 + 25 * 4 + 4
    assert count("autofocus_net", "afn1", 3, 4, 5) - count("autofocus_net", "basic", 3, 4, 5) == attention + 3 * 2 * 50


def test_more_layers_than_there_are_cannot_focus():
    with pytest.raises(ConfigError, match="autofocus at most as many; got"):
        create_model("autofocus_net", spatial_dims=2, in_channels=1, out_channels=2, autofocus=9)
