import pytest
import torch

from medseg.models import Output, create_model


@pytest.mark.parametrize(("preset", "weights"), [("L", 102_349_770), ("XL", 141_889_612)])
def test_weights_of_nnunet(count, preset, weights):
    """Of its `ResidualEncoderUNet` (dynamic_network_architectures 0.4.4) with these stages and deep supervision."""
    assert count("resenc_unet", preset, 3, 1, 2) == weights


@pytest.mark.parametrize("size", [(32, 24, 16), (17, 9, 5)], ids=str)
def test_deep_supervision_halves_and_rounds_up(size):
    net = create_model("resenc_unet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny")
    output = net.train()(torch.randn(1, 1, *size))
    assert isinstance(output, Output)
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [tuple(-(-n // 2) for n in size)]
    torch.testing.assert_close(net.eval()(torch.zeros(1, 1, *size)).shape, output.logits.shape)
