import pytest
import torch

from medseg.models import Output, create_model
from medseg.models.resenc_unet import Config, Residual


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


def test_what_passes_a_block_is_a_mean():
    block = Residual(2, 1, 1, 2, Config(norm="none"))
    for weight in block.body.parameters():
        torch.nn.init.zeros_(weight)
    x = torch.rand(1, 1, 6, 4)
    torch.testing.assert_close(block(x), torch.nn.functional.avg_pool2d(x, 2))
