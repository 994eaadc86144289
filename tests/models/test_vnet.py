import monai
import pytest
import torch
from torch import nn

from medseg.models import create_model


def test_weights_of_the_paper(count):
    assert count("vnet", "paper", 3, 1, 2) == 65_175_316


def test_each_stage_sees_as_far_as_the_paper_says():
    net = create_model("vnet", spatial_dims=2, in_channels=1, out_channels=2, widths=(2, 2, 2, 2, 2)).double()
    image = torch.rand(1, 1, 512, 512, dtype=torch.float64, requires_grad=True)
    x, seen = image, []
    for index, stage in enumerate(net.encoder):
        x = stage(net.downs[index - 1](x) if index else x)
        (slope,) = torch.autograd.grad(x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum(), image, retain_graph=True)
        seen.append(int((slope[0, 0].abs().sum(1) > 0).sum()))
    assert seen == [5, 22, 72, 172, 372]


def test_a_stage_without_weights_passes_its_input():
    net = create_model("vnet", spatial_dims=3, in_channels=3, out_channels=2, preset="tiny")
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.zeros_(weight)
    x = torch.rand(1, 3, 4, 4, 4)
    assert torch.equal(net.encoder[0](x), x[:, [0, 1, 2, 0]])  # three channels repeated to fill four
    wide = torch.rand(1, 16, 4, 4, 4)
    assert torch.equal(net.decoder[-1](wide[:, :8]), wide[:, :8])


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_any_number_of_channels(channels):
    net = create_model("vnet", spatial_dims=2, in_channels=channels, out_channels=2, preset="tiny")
    assert net(torch.rand(1, channels, 9, 9)).shape == (1, 2, 9, 9)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_common_one_has_monais_weights(count, dims):
    with torch.device("meta"):
        theirs = monai.networks.nets.VNet(dims, 1, 1)
    assert count("vnet", "common", dims, 1, 1) == sum(weight.numel() for weight in theirs.parameters())


def test_the_common_one_equals_monai_with_its_weights():
    """Which joins the doubled map first and the skip second: the halves of what a stage up sees change places."""
    theirs = monai.networks.nets.VNet(2, 1, 2).eval()
    ours = create_model("vnet", spatial_dims=2, in_channels=1, out_channels=2, preset="common").eval()
    ups = [theirs.up_tr256, theirs.up_tr128, theirs.up_tr64, theirs.up_tr32]
    downs = [theirs.down_tr32, theirs.down_tr64, theirs.down_tr128, theirs.down_tr256]
    weights = list(theirs.in_tr.parameters())
    weights += [weight for down in downs for weight in down.ops.parameters()]
    weights += [weight for down in downs for part in (down.down_conv, down.bn1) for weight in part.parameters()]
    before = None  # how the map that a step up sees is turned round
    turned = []
    for up in ups:
        first = list(up.up_conv.parameters())
        turned += [first[0] if before is None else first[0][before], *first[1:], *up.bn1.parameters()]
        width = 2 * up.bn1.num_features
        before = torch.arange(width).roll(width // 2)
    weights += turned
    for up in ups:
        order = torch.arange(2 * up.bn1.num_features).roll(up.bn1.num_features)
        weights += [w[order][:, order] if w.ndim > 1 else w[order] for w in up.ops.parameters()]
    weights += [w[:, before] if w.ndim > 1 and w.shape[1] == len(before) else w for w in theirs.out_tr.parameters()]
    with torch.no_grad():
        for own, weight in zip(ours.parameters(), weights, strict=True):
            own.copy_(weight)
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
