import pytest
import torch

from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}


@pytest.mark.parametrize(
    ("preset", "expected"), [("resnet50", 40_352_181), ("mobilenet_v2", 5_816_053), ("xception65", 41_055_413)]
)
def test_weights(preset, expected):
    """The first is published; the second is that of widely used code (5.8 M), the third the authors' 41.05 M for 19 classes."""
    assert parameters("deeplab_v3plus", preset=preset, **FOR_21) == expected


def test_the_decoder_has_the_resolution_of_the_early_map():
    net = create_model("deeplab_v3plus", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    sizes = []
    for part in (net.head.context, net.head.early, net.head.refine):
        part.register_forward_hook(lambda _, inputs, y: sizes.append(tuple(y.shape[1:])))
    net(torch.randn(1, 1, 64, 50))
    assert sizes == [(4, 16, 13), (8, 4, 4), (2, 16, 13)]


def test_all_numbers_of_xception():
    """41,258,213 with the running means and variances, as Keras counts those of the published network."""
    with torch.device("meta"):
        net = create_model("deeplab_v3plus", preset="xception65", **FOR_21)
    running = (value for name, value in net.named_buffers() if "running" in name)
    assert sum(value.numel() for value in (*net.parameters(), *running)) == 41_258_213
