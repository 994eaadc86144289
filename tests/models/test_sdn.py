import torch

from medseg.models import create_model, parameters


def dense(inputs):
    """Two layers of 48 channels and the compression to 256, all of 3x3, each with a normalisation."""
    first, second, last = 9 * inputs * 48 + 96, 9 * (inputs + 48) * 48 + 96, 9 * (inputs + 96) * 256 + 512
    return first + second + last


def test_weights():
    """By hand: the trunk, its compression, three ways up, two ways down, scores."""
    trunk = 28_681_000 - 2_209_000 + 9 * 2208 * 256 + 512
    steps = 6 * (9 * 256 * 256 + 512)
    early4, early8 = 96 + 6 * 48, 192 + 12 * 48
    ups = dense(256 + early8) + dense(256 + early4) + 2 * (dense(512 + early8) + dense(512 + early4))
    downs = 4 * dense(512)
    found = parameters("sdn", spatial_dims=2, in_channels=3, out_channels=21)
    assert found == trunk + steps + ups + downs + 9 * 256 * 21 + 21


def test_units_of_strides_4_to_16():
    net = create_model("sdn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", units=3, aux=True).train()
    x = torch.randn(2, 1, 64, 40)
    sizes = [tuple(level.shape[2:]) for level in net(x).auxiliary]
    assert sizes == [(16, 10)] * 2 + [(8, 5)] * 3
    middle = []
    for to16 in net.downs16:
        to16.register_forward_hook(lambda _, inputs, y: middle.append(tuple(y.shape[2:])))
    net(x)
    assert middle == [(4, 3)] * 2


def test_a_later_unit_refines_what_came_before():
    """Without the first unit's maps the answer changes: units are in a row, not side by side."""
    net = create_model("sdn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.randn(1, 1, 32, 32)
    before = net(x)
    torch.nn.init.zeros_(net.ups4[0].compress[1].weight)
    assert (net(x) - before).abs().max() > 1e-4
