import torch
from torch import nn

from medseg.models import Output, create_model


def make(**options):
    torch.manual_seed(0)
    return create_model("pdv_net", spatial_dims=3, in_channels=1, out_channels=4, **options)


def test_an_answer_from_each_stack_coarse_to_fine():
    output = make(dropout=0.0).train()(torch.rand(2, 1, 16, 24, 9))
    assert isinstance(output, Output)
    assert output.logits.shape == (2, 4, 16, 24, 9)
    assert [tuple(level.shape[2:]) for level in output.auxiliary] == [(4, 6, 3), (2, 3, 2)]


def test_each_answer_sees_the_one_before():
    net = make()
    assert [head.in_channels for head in net.heads] == [24, 24 + 4, 12 + 1 + 4]
    net.eval()
    x = torch.rand(1, 1, 8, 8, 8)
    before = net(x)
    nn.init.constant_(net.heads[0].bias, 5.0)
    assert (net(x) - before).abs().max() > 1e-3
    for head, classes_from in ((net.heads[1], 24), (net.heads[2], 13)):
        nn.init.zeros_(head.weight[:, classes_from:])
    alone = net(x)
    nn.init.constant_(net.heads[0].bias, 9.0)
    assert torch.equal(net(x), alone)
