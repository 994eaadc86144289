import torch

from medseg.models import create_model, parameters
from medseg.models.parse_net import LENGTH, WithGlobal


def test_weights():
    """DeepLab v1 with two scales a hidden channel, and scores of twice the channels."""
    found = parameters("parse_net", spatial_dims=2, in_channels=3, out_channels=21)
    assert found == 20_505_429 + 2 * 1024 + 1024 * 21


def test_each_place_has_one_length_and_so_has_the_image():
    part, x = WithGlobal(6), torch.randn(2, 6, 4, 5) * torch.rand(1, 1, 4, 5)
    local, whole = part(x).split(6, dim=1)
    torch.testing.assert_close(local.norm(dim=1), torch.full((2, 4, 5), LENGTH))
    mean = x.mean((2, 3))
    torch.testing.assert_close(whole[..., 1, 2], LENGTH * mean / mean.norm(dim=1, keepdim=True))
    assert torch.equal(whole, whole[..., :1, :1].expand_as(whole))


def test_a_far_voxel_is_seen():
    net = create_model("parse_net", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.randn(1, 1, 160, 16)
    before = net(x)[..., -8:, :]
    x[..., :8, :] += 5
    assert (net(x)[..., -8:, :] - before).abs().max() > 1e-6
