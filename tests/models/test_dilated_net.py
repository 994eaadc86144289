import pytest
import torch

from medseg.errors import ConfigError
from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}
CHANNELS = {"basic": (1,) * 8, "large": (2, 2, 4, 8, 16, 32, 32, 1)}


@pytest.mark.parametrize("preset", CHANNELS)
def test_weights(preset):
    """VGG16, 7x7 to 4096 channels, 1x1, scores (section 4); and table 1."""
    front = 14_714_688 + 49 * 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 21 + 21
    assert parameters("dilated_net", preset="front_end", **FOR_21) == front
    widths = [21 * n for n in (1, *CHANNELS[preset])]
    kernels = [9] * 7 + [1]
    context = sum(k * a * b + b for k, a, b in zip(kernels, widths[:-1], widths[1:], strict=True))
    assert parameters("dilated_net", preset=preset, **FOR_21) == front + context


def context_of(preset):
    ends = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    return create_model("dilated_net", preset="tiny", multiples=CHANNELS[preset][:-1], **ends).context


def test_receptive_field_after_each_layer():
    """Table 1."""
    context, x = context_of("basic"), torch.zeros(1, 3, 99, 99)
    for weight in context.parameters():
        torch.nn.init.constant_(weight, float(weight.ndim > 1))
    x[..., 49, 49] = 1
    seen = []
    for layer in context:
        x = layer(x)
        seen.append(int(x.any(dim=(0, 1, 2)).sum()))
    assert seen == [3, 5, 9, 17, 33, 65, 67, 67]


@pytest.mark.parametrize("preset", CHANNELS)
def test_a_new_context_lets_positive_scores_pass(preset):
    x = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(context_of(preset)(x), x, rtol=0.2, atol=0 if preset == "basic" else 0.2)


def test_layers_and_their_channels_must_fit():
    with pytest.raises(ConfigError, match="multiples"):
        create_model("dilated_net", rates=(1, 2), **FOR_21)
