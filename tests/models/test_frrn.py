import pytest
import torch
from torch import nn

from medseg.models import create_model
from medseg.models.frrn import Config, FullResidual


@pytest.mark.parametrize(("preset", "millions"), [("A", 17.7), ("B", 24.8)])
def test_weights_of_the_paper(count, preset, millions):
    assert count("frrn", preset, 2, 3, 19) / 1e6 == pytest.approx(millions, rel=0.005)


def test_scales_and_widths_of_A():
    """Table 1a: units of 96 at a half to 384 at a sixteenth, and back."""
    with torch.device("meta"):
        net = create_model("frrn", spatial_dims=2, in_channels=3, out_channels=19)
        seen = []
        for unit in (part for part in net.modules() if isinstance(part, FullResidual)):
            unit.register_forward_hook(lambda _, inputs, out: seen.append((64 // out[0].shape[2], out[0].shape[1])))
        net(torch.zeros(1, 3, 64, 64))
    down = [(2, 96)] * 3 + [(4, 192)] * 4 + [(8, 384)] * 2 + [(16, 384)] * 2
    assert seen == down + [(8, 192)] * 2 + [(4, 192)] * 2 + [(2, 96)] * 2


def test_a_unit_adds_to_the_lanes_and_makes_the_pooled_stream_anew():
    unit = FullResidual(2, 3, 4, 2, Config(lanes=2, norm="none"))
    nn.init.zeros_(unit.to_lanes.weight)
    nn.init.ones_(unit.to_lanes.bias)
    y, z = torch.rand(1, 3, 3, 3), torch.rand(1, 2, 5, 6)
    new_y, new_z = unit(y, z)
    assert torch.equal(new_z, z + 1)
    assert new_y.shape == (1, 4, 3, 3)
    nn.init.zeros_(unit.body[0].weight[:, 3:])
    assert torch.equal(unit(y, z)[0], unit(y, 0 * z)[0])  # the first channels are the pooled stream's


def test_the_ends_are_those_of_the_authors_code():
    """Lanes begin normalised; where both streams meet, the first unit narrows them, with a projection on the way past."""
    with torch.device("meta"):
        net = create_model("frrn", spatial_dims=2, in_channels=3, out_channels=19)
    assert [type(part).__name__.strip("_") for part in net.split] == ["Conv2d", "BatchNorm"]
    merge, scores = net.head
    assert [part.body[0].in_channels for part in merge] == [96 + 32, 48, 48]
    assert (merge[0].past.kernel_size, merge[0].past.bias) == ((1, 1), None)
    assert scores.bias is not None


def test_the_pooled_stream_goes_up_linearly():
    net = create_model("frrn", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny")
    assert [part.mode for part in (*net.resizes[2:], net.last)] == ["trilinear"] * 2
