import itertools

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from medseg.errors import ConfigError
from medseg.models import Output, create_model

PLAIN = {"block": "plain", "downsample": "pool", "bias": True, "deep_supervision": False}


def unet(dims=3, channels=1, classes=2, **options):
    return create_model("unet", spatial_dims=dims, in_channels=channels, out_channels=classes, **options)


def test_weights_of_the_papers(count):
    assert count("unet", "paper", 2, 1, 2) == 31_030_658
    scale_and_shift = 2 * (32 + 64 + 64 + 128 + 128 + 256 + 256 + 512 + 2 * (256 + 128 + 64))  # not counted there
    assert count("unet", "paper3d", 3, 3, 3) - scale_and_shift == 19_069_955


def test_weights_of_nnunet(count):
    """By hand, of its PlainConvUNet of six stages: convolutions with biases, scale and shift, steps up, heads of five levels."""
    widths = (32, 64, 128, 256, 320, 320)
    downs = sum(27 * (a * b + b * b) + 6 * b for a, b in itertools.pairwise((1, *widths)))
    ups = sum(8 * b * a + a + 27 * 3 * a * a + 6 * a + 2 * a + 2 for a, b in itertools.pairwise(widths))
    assert count("unet", "nnunet", 3, 1, 2) == downs + ups == 31_195_594


def test_half_is_dropped_at_the_end_of_the_papers_way_down():
    with torch.device("meta"):
        net = unet(2, preset="paper")
    dropped = [
        [part.p for part in stage.modules() if isinstance(part, nn.Dropout)] for stage in (*net.encoder, *net.decoder)
    ]
    assert dropped == [[], [], [], [0.5], [0.5], [], [], [], []]


def test_weights_of_the_default(count):
    assert count("unet", "residual", 3, 1, 3) == 3_204_852  # trained models have them


@pytest.mark.parametrize("dims", [2, 3])
def test_equals_monai_with_its_weights(dims):
    theirs = BasicUNet(dims, 1, 2, (4, 4, 8, 16, 32, 4), act=("LeakyReLU", {"negative_slope": 0.01})).eval()
    ours = unet(
        dims,
        widths=(4, 4, 8, 16, 32),
        strides=(1, 2, 2, 2, 2),
        kernels=(3,) * 5,
        blocks=(2,) * 5,
        decoder_blocks=2,
        **PLAIN,
    ).eval()
    ups = [theirs.upcat_4, theirs.upcat_3, theirs.upcat_2, theirs.upcat_1]
    parts = [theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4]
    parts += [up.upsample for up in ups] + [up.convs for up in ups] + [theirs.final_conv]
    weights = [weight for part in parts for weight in part.parameters()]
    with torch.no_grad():
        for own, weight in zip(ours.parameters(), weights, strict=True):
            own.copy_(weight.normal_(std=0.3))
    x = torch.randn(2, 1, *(32,) * dims)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 24, 16), (17, 9, 5)], ids=str)
def test_deep_supervision_halves_and_rounds_up(size):
    output = unet(preset="tiny", strides=(2, 2, (2, 2, 1))).train()(torch.randn(1, 1, *size))
    assert isinstance(output, Output)
    assert output.logits.shape[2:] == size
    halves = [-(-n // 2) for n in size]
    quarters = [-(-n // 4) for n in size]
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [tuple(halves), tuple(quarters)]
    assert isinstance(unet(preset="tiny", deep_supervision=False).train()(torch.randn(1, 1, *size)), torch.Tensor)


def test_options_are_what_they_say():
    net = unet(preset="tiny", norm="none", dropout=0.3, blocks=(2, 1, 1), decoder_blocks=2)
    assert not any(isinstance(part, nn.GroupNorm) for part in net.modules())
    assert {part.p for part in net.modules() if isinstance(part, nn.Dropout3d)} == {0.3}
    assert len(net.encoder[0]) == 2
    assert [len(stage) for stage in net.decoder] == [2, 2, 1 + 3]  # the last: convolution, norm, rectifier, dropout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (8, 16)}, "one item a stage"),
        ({"narrow_first": True, "block": "plain"}, "two a stage at least"),
        ({"narrow_first": True, "blocks": (2, 2, 2, 2)}, "needs plain units"),
        ({"widths": (8,), "strides": (1,), "kernels": (3,), "blocks": (1,)}, "two stages at least"),
        ({"kernels": (3, 3, 3, (3, 3))}, "one an axis"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        unet(**options)
