"""Trunks: their counts, sizes and dilations."""

import pytest
import torch
from torch import nn

from medseg.models import _backbones as trunks


def weights(make):
    with torch.device("meta"):
        return sum(weight.numel() for weight in make().parameters())


def rates(trunk, stage, kernel=3):
    convs = [part for part in trunk.stages[stage].modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    return [conv.dilation[0] for conv in convs if conv.kernel_size[0] == kernel]


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160), (152, 58_143_808)]
)
def test_weights_of_residual_networks(depth, count):
    assert weights(lambda: trunks.resnet(2, 3, depth)) == count


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (trunks.vgg, 14_714_688),
        (lambda *ends: trunks.vgg(*ends, norm="batch"), 14_714_688 + 2 * 4224),
        # of torchvision's networks all but the classifiers, and the last 1x1 unit of MobileNetV2 and EfficientNet
        (lambda *ends: trunks.densenet(*ends, 121), 7_978_856 - 1_025_000),
        (lambda *ends: trunks.densenet(*ends, 161), 28_681_000 - 2_209_000),
        (lambda *ends: trunks.densenet(*ends, 169), 14_149_480 - 1_665_000),
        (lambda *ends: trunks.densenet(*ends, 201), 20_013_928 - 1_921_000),
        (trunks.mobilenet_v2, 3_504_872 - 1_281_000 - 412_160),
        (trunks.mobilenet_v3, 5_483_032 - 2_511_080),
        (trunks.efficientnet_b0, 5_288_548 - 1_281_000 - 412_160),
        # ResNeXt 32x4d, torchvision's and timm's less the classifier
        (lambda *ends: trunks.resnet(*ends, 50, groups=32), 25_028_904 - 2_049_000),
        (lambda *ends: trunks.resnet(*ends, 101, groups=32), 44_177_704 - 2_049_000),
        # HRNetV2 for 19 classes less its head
        (lambda *ends: trunks.hrnet(*ends, "w18"), 9_641_119 - 78_859),
        (lambda *ends: trunks.hrnet(*ends, "w48"), 65_859_379 - 534_259),
    ],
)
def test_weights_of_others(make, count):
    assert weights(lambda: make(2, 3)) == count


SMALL = {
    "resnet": lambda dims, **how: trunks.resnet(dims, 1, 10, width=1 / 16, **how),
    "resnet deep stem": lambda dims, **how: trunks.resnet(dims, 1, 50, width=1 / 32, deep_stem=True, **how),
    "vgg": lambda dims, **how: trunks.vgg(dims, 1, 8, width=1 / 16, **how),
    "vgg pool 3": lambda dims, **how: trunks.vgg(dims, 1, 8, width=1 / 16, pool=3, **how),
    "densenet": lambda dims, **how: trunks.densenet(dims, 1, 13, width=1 / 8, **how),
    "mobilenet_v2": lambda dims, **how: trunks.mobilenet_v2(dims, 1, width=1 / 16, **how),
    "mobilenet_v3": lambda dims, **how: trunks.mobilenet_v3(dims, 1, width=1 / 16, **how),
    "efficientnet_b0": lambda dims, **how: trunks.efficientnet_b0(dims, 1, width=1 / 16, **how),
    "xception": lambda dims, **how: trunks.xception(dims, 1, 41, width=1 / 64, **how),
    "wide_resnet38": lambda dims, **how: trunks.wide_resnet38(dims, 1, width=1 / 64, blocks=1, **how),
    "alexnet": lambda dims: trunks.alexnet(dims, 1, width=1 / 16),
    "hrnet": lambda dims: trunks.hrnet(dims, 1, "w18_small_v1", width=1 / 8),
    "xception39": lambda dims: trunks.xception39(dims, 1, width=1 / 8),
}
STRIDED = [name for name in SMALL if name not in ("alexnet", "hrnet", "xception39")]


def check_maps(trunk, size):
    maps = trunk(torch.randn(1, 1, *size))
    assert len(maps) == len(trunk.channels) == len(trunk.strides)
    for map_, channels, stride in zip(maps, trunk.channels, trunk.strides, strict=True):
        assert map_.shape == (1, channels, *(-(-n // stride) for n in size))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(33, 18), (1, 1), (17, 1, 40)], ids=str)
def test_maps_have_the_channels_and_strides_that_are_said(name, size):
    check_maps(SMALL[name](len(size)).train(), size)


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("stride", [8, 16])
def test_no_map_is_coarser_than_the_output_stride(name, stride):
    trunk = SMALL[name](2, output_stride=stride)
    assert max(trunk.strides) == stride
    check_maps(trunk, (33, 18))


def test_dilations_of_a_residual_network():
    assert rates(trunks.resnet(2, 1, 18, output_stride=8), 3) == [1, 2, 2, 2]  # the first had the stride
    assert rates(trunks.resnet(2, 1, 50, output_stride=8), 4) == [2, 4, 4]
    assert rates(trunks.resnet(2, 1, 50, output_stride=16, multi_grid=(1, 2, 4)), 4) == [2, 4, 8]


@pytest.mark.parametrize("name", [name for name in STRIDED if name[:3] not in ("vgg", "den")])
def test_dilated_it_computes_the_same_at_every_second_element(name):
    """The hole algorithm leaves out the stride and nothing else, where no pooling is left out."""
    plain, dilated = (SMALL[name](2, output_stride=stride).eval() for stride in (32, 16))
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 64, 96)
    torch.testing.assert_close(dilated(x)[-1][..., ::2, ::2], plain(x)[-1])


def test_the_halves_of_alexnet():
    trunk = trunks.alexnet(2, 3)
    assert [conv.groups for conv in trunk.modules() if isinstance(conv, nn.Conv2d)] == [1, 2, 1, 2, 2]
    assert weights(lambda: trunk) == 2_334_080


def test_xception_gives_the_last_map_before_the_stride():
    """DeepLab v3+, 4.1: of stride 4 it is the second block's, of its second convolution, and not the block before."""
    trunk = trunks.xception(2, 1, 41, width=1 / 16).eval()
    body = trunk.stages[2][0].body
    seen = []
    body[1].register_forward_hook(lambda _, inputs, y: seen.append(y))
    maps = trunk(torch.randn(1, 1, 32, 32))
    assert maps[1] is seen[0]
    assert maps[1].shape == (1, 16, 8, 8)
    assert [y.shape[1] for y in maps] == list(trunk.channels)


@pytest.mark.parametrize("name", ["mobilenet_v3", "xception"])
def test_variances_are_added_to_as_by_the_authors(name):
    """torchvision's MobileNetV3 and timm's Xception: 0.001. A channel of variance 0.001 comes out 1.4 times smaller."""
    norms = [part for part in SMALL[name](2).modules() if hasattr(part, "running_var")]
    assert {part.eps for part in norms} == {1e-3}
