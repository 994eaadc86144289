import pytest
import torch

from medseg.models import create_model, parameters
from medseg.models.psanet import PointwiseAttention


def test_weights():
    """By hand: the trunk with three 3x3, both ways of 59 x 59 offsets, the projection, the head."""
    trunk = 23_508_032 + 27 * 64 + 9 * 64 * 64 + 9 * 64 * 128 + 2 * 256 - (3 * 49 * 64 + 2 * 64) + 64 * 64 + 64 * 256
    way = 2048 * 512 + 2 * 512 + 512 * 512 + 2 * 512 + 512 * 59 * 59
    project = 1024 * 2048 + 2 * 2048
    head = 9 * 4096 * 512 + 2 * 512 + 512 * 19 + 19
    found = parameters("psanet", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == trunk + 2 * way + project + head


@pytest.mark.parametrize("gives", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_attention_by_hand(dims, gives):
    torch.manual_seed(0)
    part = PointwiseAttention(dims, 2, 3, 2, gives=gives, norm="none")
    x = torch.randn(1, 2, *[2] * dims)
    values, weights = part.reduce(x)[0], part.weights(part.reduce(x))[0].unflatten(0, [3] * dims)
    expected = torch.zeros_like(values)
    places = [tuple(place) for place in torch.cartesian_prod(*[torch.arange(2)] * dims).tolist()]
    for target in places:
        scores = []
        for source in places:
            here, there = (source, target) if gives else (target, source)
            offset = tuple(b - a + 1 for a, b in zip(here, there, strict=True))
            scores.append(weights[(*offset, *here)])
        share = torch.stack(scores).softmax(0)
        expected[(slice(None), *target)] = sum(
            s * values[(slice(None), *source)] for s, source in zip(share, places, strict=True)
        )
    torch.testing.assert_close(part(x)[0], expected)


def test_memory_is_bounded_in_3d():
    with torch.device("meta"):
        net = create_model("psanet", spatial_dims=3, in_channels=1, out_channels=2)
    assert net.head[1].grid == 10
