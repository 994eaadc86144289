import itertools

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from medseg.models import create_model
from medseg.models._reversible import Reversible, _forward


def half(dims=2):
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(nn.GroupNorm(3, 3), nn.LeakyReLU(0.01, inplace=True), conv(3, 3, 3, padding=1, bias=False))


def blocks(count, dims=2):
    torch.manual_seed(0)
    return Reversible([(half(dims), half(dims)) for _ in range(count)])


def gradients(net, x, compute):
    x = x.clone().requires_grad_()
    (compute(x) ** 3).sum().backward()
    found = [x.grad, *(weight.grad for weight in net.parameters())]
    net.zero_grad()
    return found


def pairs(net):
    return [(pair[0], pair[1]) for pair in net.blocks]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("count", "bf16", "tolerance"), [(1, False, 1e-5), (4, False, 1e-4), (3, True, 0.05)])
def test_gradients_are_those_of_blocks_that_keep_all(dims, count, bf16, tolerance):
    net, x = blocks(count, dims), torch.randn(2, 6, *(7,) * dims)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours, plain = gradients(net, x, net), gradients(net, x, lambda x: _forward(pairs(net), x))
    for found, expected in zip(ours, plain, strict=True):
        assert (found - expected).norm() <= tolerance * expected.norm()


def kept(net, x):
    """Elements that are kept for the backward pass, weights not counted."""
    weights, found = {weight.data_ptr() for weight in net.parameters()}, {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = net(x)
    assert result.requires_grad
    return sum(found.values())


def test_more_blocks_keep_no_more():
    x = torch.randn(1, 1, 16, 16, 16)
    one, many = (
        kept(create_model("reversible_unet", preset="tiny", blocks=n, spatial_dims=3, in_channels=1, out_channels=2), x)
        for n in (1, 6)
    )
    assert one == many


def test_weights_of_the_paper(count):
    """By hand: two convolutions of half the channels a block, down and up, between them 1x1x1; group normalisation on top."""
    widths = (60, 120, 240, 360, 480)
    convolutions = 2 * sum(2 * 27 * (w // 2) ** 2 for w in widths)
    scales = 2 * sum(2 * 2 * (w // 2) for w in widths)
    steps = sum(2 * a * b + a + b for a, b in itertools.pairwise(widths))
    ends = 4 * 60 * 27 + 60 * 3 + 3
    assert count("reversible_unet", "paper", 3, 4, 3) == convolutions + scales + steps + ends


@pytest.mark.parametrize("norm", ["group", "none"])
def test_what_a_block_adds_is_not_rectified(norm):
    """Normalisation and rectifier come before the convolution; without a normalisation the kept half is not written to."""
    net = create_model(
        "reversible_unet",
        preset="tiny",
        norm=norm,
        widths=(16, 8),
        strides=(2,),
        spatial_dims=2,
        in_channels=1,
        out_channels=2,
    )
    part, x = net.encoder[0].blocks[0][0], torch.randn(2, 8, 16, 16)
    before = x.clone()
    added = part(x)
    assert torch.equal(x, before)
    assert 0.3 < -added.min() / added.max() < 3
