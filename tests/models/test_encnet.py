import pytest
import torch

from medseg.models import parameters
from medseg.models.encnet import Encoding

# 3x3 unit of 2048 to 512; 1x1 unit, codewords with a factor each, their norm, the gates; 19 scores.
HEAD = (2048 * 512 * 9 + 1024) + (512 * 512 + 1024) + 32 * 513 + 64 + 513 * 512 + 513 * 19


@pytest.mark.parametrize(("preset", "trunk"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_weights(preset, trunk):
    """Derived from figure 2 and the section on training, without the layer of the presence loss (513 * 19)."""
    assert parameters("encnet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19) == trunk + HEAD


def test_an_encoding_by_hand():
    part = Encoding(1, 2)
    with torch.no_grad():
        part.codewords.copy_(torch.tensor([[0.0], [10.0]]))
        part.scale.fill_(1.0)
    found = part(torch.tensor([[[1.0, 9.0, 8.0, 2.0]]]))  # (B, C, N): two voxels by each codeword
    torch.testing.assert_close(found, torch.tensor([[[3 / 4], [-3 / 4]]]))
