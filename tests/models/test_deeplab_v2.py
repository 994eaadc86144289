import torch

from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}


def test_weights():
    assert parameters("deeplab_v2", **FOR_21) == 44_048_532


def test_weights_on_vgg():
    """Four times what DeepLab v1 has after its trunk."""
    assert parameters("deeplab_v2", preset="vgg16", **FOR_21) == 14_714_688 + 4 * (20_505_429 - 14_714_688)


def test_scores_are_the_sum_of_their_branches():
    net = create_model("deeplab_v2", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.randn(1, 1, 40, 33)
    last = net.trunk(x)[-1]
    assert last.shape[2:] == (5, 5)
    aspp = net.head[1]
    assert [branch.dilation[0] for branch in aspp.branches] == [1, 2]
    torch.testing.assert_close(aspp(last), aspp.branches[0](last) + aspp.branches[1](last))
