import torch

from medseg.models import create_model, parameters


def test_weights():
    """By hand: the classifier's two convolutions against the single one."""
    ends = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}
    one = 4096 * 21 * 9 + 21
    two = 4096 * 512 * 9 + 512 + 512 * 21 * 9 + 21
    found = parameters("wide_resnet38", **ends)
    assert found == 124_042_581
    assert found - parameters("wide_resnet38", preset="linear", **ends) == two - one


def test_the_classifier_reaches_as_far_as_its_dilation():
    net = create_model("wide_resnet38", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", rate=3).eval()
    last = torch.rand(1, net.trunk.channels[-1], 15, 15, requires_grad=True)
    (slope,) = torch.autograd.grad(net.head([last])[0, 0, 7, 7], last)
    rows = slope[0].abs().sum((0, 2)).nonzero().flatten()
    assert set(rows.tolist()) <= {1, 4, 7, 10, 13}
    assert len(rows) > 1
