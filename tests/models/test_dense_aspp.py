from itertools import pairwise

import pytest
import torch

from medseg.models import _context, create_model, parameters


def test_weights():
    """By hand: the trunk without its classifier, half its channels, five layers, scores. The authors say 35.7 M.

    The last four layers begin with a normalisation of all that they see.
    """
    trunk = 28_681_000 - 2_209_000
    half = 2208 * 1104 + 2 * 1104
    inputs = [1104 + 128 * n for n in range(5)]
    layers = sum(n * 512 + 2 * 512 + 9 * 512 * 128 for n in inputs) + sum(2 * n for n in inputs[1:])
    scores = (1104 + 5 * 128) * 19 + 19
    found = parameters("dense_aspp", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == trunk + half + layers + scores
    assert found / 1e6 == pytest.approx(35.7, rel=0.01)


def test_convolutions_come_last_in_a_layer():
    """Normalisation, rectifier, convolution, as in the trunk: what is added to the maps may be negative."""
    layers = _context.DenseASPP(2, 6, 4, 2, (1, 3)).layers
    kinds = [
        [type(part).__name__.strip("_") for part in layer.modules() if not list(part.children())] for layer in layers
    ]
    later = ["BatchNorm", "ReLU", "Conv2d"] * 2 + ["Dropout2d"]
    assert kinds == [later[2:], later]


def test_each_dilation_sees_all_before_it():
    net = create_model("dense_aspp", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    context, inputs = net.head[2], []
    for layer in context.layers:
        layer.register_forward_hook(lambda _, given, y: inputs.append(given[0]))
    net(torch.randn(1, 1, 24, 24))
    widths = [each.shape[1] for each in inputs]
    assert widths == [widths[0], widths[0] + 4, widths[0] + 8]
    for before, after in pairwise(inputs):
        assert torch.equal(after[:, : before.shape[1]], before)
