import pytest
import torch

from medseg.models import create_model, parameters
from medseg.models.bisenet import fusion

AUX = 2 * (128 * 256 * 9 + 512 + 257 * 19)


@pytest.mark.parametrize(("aux", "expected"), [(False, 12_894_163), (True, 12_894_163 + AUX)])
def test_weights(aux, expected):
    found = parameters("bisenet", preset="resnet18", aux=aux, spatial_dims=2, in_channels=3, out_channels=19)
    assert found == expected


def unit(inputs, outputs, kernel=1):
    return inputs * outputs * kernel**2 + 2 * outputs


@pytest.mark.parametrize(
    ("preset", "trunk", "side", "last"), [("resnet18", 11_176_512, 256, 512), ("xception39", 304_064, 128, 256)]
)
def test_weights_of_the_published_code(preset, trunk, side, last):
    """By hand, with the widths of the authors' code (TorchSeg, `cityscapes.bisenet.R18` and `X39`, its 7x7 stem): 128 channels a
    path, 64 within the spatial path and before the scores, no reduction in the fusion."""
    spatial = unit(3, 64, 7) + 2 * unit(64, 64, 3) + unit(64, 128)
    refinements = sum(unit(n, 128, 3) + unit(128, 128) for n in (side, last))
    context = trunk + unit(last, 128) + refinements + 2 * unit(128, 128, 3)
    fusion = unit(256, 256) + 2 * 256 * 256
    scores = unit(256, 64, 3) + 65 * 19
    found = parameters("bisenet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19)
    assert found == spatial + context + fusion + scores


@pytest.mark.parametrize(
    ("published", "weights"),
    [
        (49.0, 12_894_163),  # BiSeNet on ResNet-18
        (5.8, 1_546_579),  # BiSeNet on Xception39, of which the authors' code has 1.54 million (issue 30 of TorchSeg)
        (42.7, 11_176_512 + 513 * 19),  # table 1: FCN-32s on ResNet-18, whose weights nobody disputes
        (1.2, 304_064 + 257 * 19),  # table 1: FCN-32s on Xception39
    ],
)
def test_the_papers_millions_are_of_bytes(published, weights):
    """The paper's "49.0 M" parameters are MiB of float32: FCN-32s, which has no choices, says so. No ResNet-18 with heads of 128
    channels has 49.0 million weights; what is left, 2 %, is within what its figures and its code differ."""
    assert weights * 4 / 2**20 == pytest.approx(published, rel=0.02)


def test_fusion_adds_between_nothing_and_the_map():
    part, x = fusion(2, 6, "batch").eval(), torch.randn(2, 6, 5, 7)
    mixed = part[0](x)
    share = (part(x) - mixed)[mixed > 0] / mixed[mixed > 0]
    assert 0 < share.min() < share.max() < 1


def test_auxiliary_scores_have_strides_8_and_16():
    net = create_model("bisenet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    _, auxiliary, _ = net(torch.randn(1, 1, 17, 32, 9))
    assert [tuple(level.shape[2:]) for level in auxiliary] == [(3, 4, 2), (2, 2, 1)]
