import pytest
import torch

from medseg.models import create_model, parameters

WHOLE = (3 * 32 * 9 + 64) + (32 * 32 * 9 + 64) + (32 * 64 * 9 + 128)
FUSIONS = (2048 * 128 * 9 + 256) + (512 * 128 + 256) + (128 * 128 * 9 + 256) + (64 * 128 + 256)


@pytest.mark.parametrize(("aux", "scores"), [(False, 1), (True, 3)])
def test_weights(aux, scores):
    """Derived: two resolutions share the trunk, whose pyramid has no weights; tables of others have 26.5 million."""
    found = parameters("icnet", preset="resnet50", aux=aux, spatial_dims=2, in_channels=3, out_channels=19)
    assert found == 23_508_032 + WHOLE + FUSIONS + scores * 128 * 19
    assert found == pytest.approx(26.5e6, rel=0.02)


def test_the_first_layers_see_half_the_resolution_and_all_others_a_quarter():
    """To conv3_1, once: the rest of the trunk goes on from its halved map, as in the authors' code."""
    net = create_model("icnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", depth=18).eval()
    stem, second, third, *deep = net.trunk.stages
    sizes = []
    for part in (stem, second, *third, *deep):
        part.register_forward_hook(lambda _, __, x: sizes.append(x.shape[-1]))
    net(torch.randn(1, 1, 64, 64))
    assert sizes == [16, 8, 4, 2, 2, 2]
