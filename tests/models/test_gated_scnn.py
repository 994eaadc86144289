import pytest
import torch
from torch import nn

from medseg.losses import create_loss
from medseg.models import create_model, parameters
from medseg.models.gated_scnn import GatedConvolution, gradient_magnitude


def test_weights():
    """The authors' network has about 137 million."""
    count = parameters("gated_scnn", spatial_dims=2, in_channels=3, out_channels=19)
    assert count == 137_286_317
    assert round(count / 1e6) == 137


@pytest.mark.parametrize("size", [(9, 8), (7, 8, 6)], ids=str)
def test_edges_lie_where_the_image_changes(size):
    x = torch.zeros(2, 1, *size)
    x[0, :, 4:] = 5
    edges = gradient_magnitude(x)
    expected = torch.zeros_like(x)
    expected[0, :, 3:5] = 1
    assert torch.equal(edges, expected)  # an image without edges has none


def test_edges_of_a_slope_along_any_axis():
    slope = torch.arange(6.0).expand(1, 1, 5, 6)
    assert torch.equal(gradient_magnitude(slope)[..., 1:-1], torch.ones(1, 1, 5, 4))
    torch.testing.assert_close(gradient_magnitude(slope.mT), gradient_magnitude(slope).mT)


def test_a_gate_lets_through_once_or_twice():
    gate = GatedConvolution(2, 4, "none")
    shapes, classes = torch.randn(1, 4, 5, 5), torch.randn(1, 1, 5, 5)
    nn.init.zeros_(gate.gate[3].weight)
    for bias, times in ((-1e4, 1), (1e4, 2)):
        nn.init.constant_(gate.gate[3].bias, bias)
        torch.testing.assert_close(gate(shapes, classes), times * gate.conv(shapes))


def test_the_image_s_own_edges_are_seen():
    net = create_model("gated_scnn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    seen = []
    net.edges.register_forward_hook(lambda module, inputs, y: seen.append(inputs[0]))
    x = torch.randn(1, 1, 24, 16)
    net.eval()(x)
    assert torch.equal(seen[0][:, 1:], gradient_magnitude(x))
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1


def test_boundaries_are_trained_with_the_classes():
    """They come in training alone, at the image's size, and the paper's loss moves them to where classes meet."""
    net, x = (
        create_model("gated_scnn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny"),
        torch.randn(2, 1, 24, 16),
    )
    truth = torch.zeros(2, 24, 16, dtype=torch.long)
    truth[:, 8:16, 4:12] = 1
    x, loss = 0.1 * x + truth[:, None], create_loss("dual_task")
    assert isinstance(net.eval()(x), torch.Tensor)
    optimiser, costs = torch.optim.AdamW(net.train().parameters(), lr=0.01), []
    for _ in range(15):
        output = net(x)
        assert output.boundary.shape == (2, 1, 24, 16)
        costs.append(loss(output, truth))
        optimiser.zero_grad()
        costs[-1].backward()
        optimiser.step()
    assert costs[-1] < 0.6 * costs[0]
    found = output.boundary[:, 0]
    assert found[:, 8, 5:11].mean() > found[:, 1:6].mean() + 1
