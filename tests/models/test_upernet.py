import torch

from medseg.models import create_model, parameters

FOR_150 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 150}


def test_weights():
    assert parameters("upernet", aux=True, **FOR_150) == 66_496_876
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 150 + 150
    assert parameters("upernet", **FOR_150) == 66_496_876 - auxiliary


def test_pooling_of_the_coarsest_map_reaches_the_finest():
    net = create_model("upernet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    pyramid, seen = net.head[0], []
    maps = [torch.rand(1, channels, 64 >> n, 64 >> n) for n, channels in enumerate(net.trunk.channels)]
    pyramid.laterals[-1].register_forward_hook(lambda module, inputs, y: seen.append(y))
    for lateral in pyramid.laterals[:-1]:
        torch.nn.init.zeros_(lateral[0].weight)
    finest, *_, coarsest = pyramid(maps)
    assert torch.equal(coarsest, seen[0])  # it is not smoothed
    y = coarsest
    for size in (8, 16, 32):
        y = torch.nn.functional.interpolate(y, (size, size), mode="bilinear")
    torch.testing.assert_close(finest, pyramid.smoothing[0](y))
