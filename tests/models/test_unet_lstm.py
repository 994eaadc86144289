import pytest
import torch

from medseg.models import Output, create_model
from medseg.models.unet_lstm import Neighbours


def test_a_slice_is_seen_between_its_neighbours():
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert Neighbours()(x)[0, :, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    assert Neighbours()(x[..., :1])[0, :, 0].tolist() == [[0]] * 3


@pytest.mark.parametrize("classes", [1, 3])
def test_the_lstm_corrects_probabilities(classes):
    net = create_model("unet_lstm", spatial_dims=3, in_channels=2, out_channels=classes, preset="tiny")
    seen = []
    net.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = net.train()(torch.rand(1, 2, 8, 8, 4))
    assert isinstance(output, Output)
    (found,) = output.auxiliary
    torch.testing.assert_close(seen[0], found.softmax(1) if classes > 1 else found.sigmoid())
    assert output.logits.shape == found.shape


def test_without_the_lstm_a_slice_knows_its_neighbours():
    net = create_model("unet_lstm", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.rand(1, 1, 8, 8, 7, requires_grad=True)
    (slope,) = torch.autograd.grad(net.unet(x)[..., 3].square().sum(), x)
    assert slope.abs().amax((0, 1, 2, 3)).nonzero().flatten().tolist() == [2, 3, 4]
    (slope,) = torch.autograd.grad(net(x)[..., 3].square().sum(), x)
    assert slope.abs().amax((0, 1, 2, 3)).all()


def test_only_the_refined_is_trained_where_asked():
    net = create_model(
        "unet_lstm", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", deep_supervision=False
    )
    assert isinstance(net.train()(torch.rand(2, 1, 8, 4)), torch.Tensor)
