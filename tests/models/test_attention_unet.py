import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock

from medseg.models import create_model
from medseg.models._grid_attention import GridGate
from medseg.models.attention_unet import Gate


def test_weights_of_the_paper(count):
    assert count("attention_unet", "paper", 2, 3, 1) == 34_878_573


@pytest.mark.parametrize("dims", [2, 3])
def test_gate_equals_monai_with_its_weights(dims):
    theirs = AttentionBlock(spatial_dims=dims, f_int=3, f_g=6, f_l=6, dropout=0.0)
    ours = Gate(dims, 6, 3, "batch")
    parts = [theirs.W_g, theirs.W_x, theirs.psi]
    weights = [weight for part in parts for weight in part.parameters()]
    with torch.no_grad():
        for own, weight in zip(ours.parameters(), weights, strict=True):
            own.copy_(weight.normal_())
    skip, gating = torch.randn(2, 2, 6, *(8,) * dims)
    for part in (ours, theirs):
        part.train()
    torch.testing.assert_close(ours(skip, gating), theirs(g=gating, x=skip))
    torch.testing.assert_close(ours.eval()(skip, gating), theirs.eval()(g=gating, x=skip))


def test_a_gate_opens_and_closes():
    gate = Gate(2, 4, 2, "none")
    skip, gating = torch.randn(2, 1, 4, 5, 5)
    for bias, share in ((100.0, 1.0), (-100.0, 0.0)):
        torch.nn.init.constant_(gate.psi[0].bias, bias)
        torch.testing.assert_close(gate(skip, gating), share * skip)


def test_closed_gates_hide_the_finest_level():
    """With its gate closed, the image reaches the finest decoder stage through coarser blocks only."""
    net = create_model(
        "attention_unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", norm="none"
    ).eval()
    seen = []
    net.decoder[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, :4]))
    torch.nn.init.constant_(net.gates[-1].psi[0].bias, -1000.0)
    net(torch.rand(1, 1, 8, 8))
    torch.nn.init.constant_(net.gates[-1].psi[0].bias, 1000.0)
    net(torch.rand(1, 1, 8, 8))
    assert not seen[0].any()
    assert seen[1].any()


def test_weights_of_ct150():
    """The paper's 6.40 M (table 1) are those of convolutions, without biases and normalisations."""
    with torch.device("meta"):
        net = create_model("attention_unet", preset="ct150", spatial_dims=3, in_channels=1, out_channels=15)
    assert sum(weight.numel() for weight in net.parameters() if weight.ndim > 1) == 6_403_588


@pytest.mark.parametrize("dims", [2, 3])
def test_a_grid_gate_opens_and_closes(dims):
    gate = GridGate(dims, 3, 5, 2, "none")
    skip, gating = torch.randn(1, 3, *(7,) * dims), torch.randn(1, 5, *(4,) * dims)
    for bias, share in ((100.0, 1.0), (-100.0, 0.0)):
        torch.nn.init.constant_(gate.psi.bias, bias)
        torch.testing.assert_close(gate(skip, gating), gate.mix(share * skip))


@pytest.mark.parametrize("size", [(16, 16, 16), (9, 5, 7), (1, 1, 1), (13, 1, 8)], ids=str)
def test_grids_of_any_size(size):
    options = {"gate": "grid", "widths": (3, 4, 5), "strides": (2, (2, 1, 2))}
    net = create_model("attention_unet", spatial_dims=3, in_channels=1, out_channels=2, **options)
    logits = net.train()(torch.randn(1, 1, *size))
    assert logits.shape == (1, 2, *size)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_scores_of_all_levels_make_the_last():
    options = {"gate": "grid", "widths": (3, 4, 5), "strides": (2, 2)}
    net = create_model("attention_unet", spatial_dims=2, in_channels=1, out_channels=2, **options).eval()
    with torch.no_grad():
        net.head.weight.zero_()[:, :2, 0, 0] = torch.eye(2)
        net.head.bias.zero_()
    seen = []
    net.decoder[-1].register_forward_hook(lambda _, inputs, y: seen.append(y))
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(net(x), net.scores[-1](seen[0]))
