import torch
from torch import nn

from medseg.models import create_model, parameters


def test_it_has_the_weights_of_segnet():
    assert parameters("bayesian_segnet", spatial_dims=2, in_channels=3, out_channels=21) == 29_455_125
    both = [
        create_model(name, spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
        for name in ("segnet", "bayesian_segnet")
    ]
    for ours, theirs in zip(both[1].parameters(), both[0].parameters(), strict=True):
        ours.data.copy_(theirs.data)
    x = torch.randn(1, 1, 21, 18)
    torch.testing.assert_close(both[1](x), both[0](x))


def test_the_central_six_stages_end_in_dropout():
    net = create_model("bayesian_segnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")
    dropped = []
    for name, part in net.named_modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda *_, name=name: dropped.append(name.split(".")[:-1]))
    net(torch.randn(1, 1, 64, 64))
    # a stage of the encoder begins with what the one before dropped after its pooling
    assert dropped == [["encoder", "3"], ["encoder", "4"], [], ["decoder", "0"], ["decoder", "1"], ["decoder", "2"]]


def test_answers_differ_where_dropout_is_on():
    net = create_model("bayesian_segnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", norm="none")
    x = torch.randn(1, 1, 32, 32)
    assert not torch.equal(net(x), net(x))
