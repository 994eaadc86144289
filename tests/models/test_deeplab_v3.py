import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}


@pytest.mark.parametrize(
    ("preset", "aux", "expected"),
    [
        ("resnet50", False, 39_638_869),
        ("resnet50", True, 42_004_074),
        ("resnet101", True, 60_996_202),
        ("mobilenet_v3", False, 11_025_477),
        ("mobilenet_v3", True, 11_029_328),
    ],
)
def test_weights(preset, aux, expected):
    """Published ones: torchvision's tables have them with the auxiliary head."""
    assert parameters("deeplab_v3", preset=preset, aux=aux, **FOR_21) == expected


def test_the_paper_scores_the_joined_branches():
    """Section 3.3: "another 1x1 convolution ... before the final 1x1 convolution", and nothing else."""
    branches = 2 * (2048 * 256 + 512) + 3 * (9 * 2048 * 256 + 512) + 5 * 256 * 256 + 512
    assert parameters("deeplab_v3", preset="paper", **FOR_21) == 42_500_160 + branches + 257 * 21


@pytest.mark.parametrize(("trunk", "size"), [("resnet", (5, 8)), ("mobilenet_v3", (5, 8))])
def test_auxiliary_scores_are_those_of_an_early_map(trunk, size):
    options = {"preset": "tiny", "trunk": trunk, "width": 1 / 8, "stride": 8 if trunk == "resnet" else 16, "aux": True}
    net = create_model("deeplab_v3", spatial_dims=2, in_channels=1, out_channels=2, **options).train()
    (level,) = net(torch.randn(2, 1, 40, 64)).auxiliary
    assert level.shape == (2, 2, *size)


def test_the_cascade_of_the_paper():
    """Nine bottlenecks of 2048 channels more, of dilations 4, 8 and 16 by the multi-grid 1, 2, 1 (figure 3 b), and scores."""
    bottleneck = 2 * 2048 * 512 + 9 * 512 * 512 + 2 * (512 + 512 + 2048)
    assert parameters("deeplab_v3", preset="cascade", **FOR_21) == 42_500_160 + 9 * bottleneck + 2049 * 21
    with torch.device("meta"):
        trunk = create_model("deeplab_v3", preset="cascade", **FOR_21).trunk
    rates = [
        [part.dilation[0] for part in stage.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
        for stage in trunk.stages[4:]
    ]
    assert rates == [[rate, 2 * rate, rate] for rate in (2, 4, 8, 16)]
    assert trunk.strides[4:] == (16,) * 4
