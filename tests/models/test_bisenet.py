import pytest
import torch

from medseg.models import create_model, parameters
from medseg.models.bisenet import fusion

AUX = 2 * (128 * 256 * 9 + 512 + 257 * 19)


@pytest.mark.parametrize(("aux", "expected"), [(False, 12_894_163), (True, 12_894_163 + AUX)])
def test_weights(aux, expected):
    """The paper's 49.0 "M" are MiB of fp32, as its table 1 has 42.7 for FCN-32s on ResNet-18: 11,186,259 weights."""
    assert round(11_186_259 * 4 / 2**20, 1) == 42.7
    found = parameters("bisenet", preset="resnet18", aux=aux, spatial_dims=2, in_channels=3, out_channels=19)
    assert found == expected
    assert round(12_894_163 * 4 / 2**20, 1) == 49.2  # the paper: 49.0


def test_fusion_adds_between_nothing_and_the_map():
    part, x = fusion(2, 6, "batch").eval(), torch.randn(2, 6, 5, 7)
    mixed = part[0](x)
    share = (part(x) - mixed)[mixed > 0] / mixed[mixed > 0]
    assert 0 < share.min() < share.max() < 1


def test_auxiliary_scores_have_strides_8_and_16():
    net = create_model("bisenet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    _, auxiliary = net(torch.randn(1, 1, 17, 32, 9))
    assert [tuple(level.shape[2:]) for level in auxiliary] == [(3, 4, 2), (2, 2, 1)]
