import pytest
import torch
from torch import nn

from medseg.models import _attention, _context, _regions

SIZES = [(7, 10), (1, 1), (5, 1, 6), (3, 4, 5)]
KEEPING = {
    "pyramid": lambda dims: _context.PyramidPooling(dims, 8),
    "image": lambda dims: _context.ImagePooling(dims, 8, 8),
    "sum": lambda dims: _context.SumASPP(dims, 8, 8, (1, 3)),
    "aspp": lambda dims: _context.ASPP(dims, 8, 8, (2, 4), dropout=0),
    "aspp separable": lambda dims: _context.ASPP(dims, 8, 8, (2, 4), split=True, image=False),
    "dense": lambda dims: _context.DenseASPP(dims, 8, 4, 2, (1, 3)),
    "large kernel": lambda dims: _context.LargeKernel(dims, 8, 8, 5),
    "refinement": lambda dims: _context.boundary_refinement(dims, 8),
    "rcu": lambda dims: _context.residual_conv_unit(dims, 8),
    "chained": lambda dims: _context.ChainedPooling(dims, 8),
    "se": lambda dims: _attention.squeeze_excite(dims, 8, 4),
    "non-local": lambda dims: _attention.NonLocal(dims, 8, 4),
    "position": lambda dims: _attention.PositionAttention(dims, 8, 4),
    "channel": lambda dims: _attention.ChannelAttention(),
    "criss-cross": lambda dims: _attention.CrissCross(dims, 8, 4),
    "em": lambda dims: _regions.EMAttention(dims, 8, 4),
}


def stirred(part):
    """Without weights that begin at zero."""
    for weight in part.parameters():
        if not weight.any():
            nn.init.constant_(weight, 0.5)
    return part


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_map_keeps_its_size_and_every_weight_learns(name, size):
    torch.manual_seed(0)
    part = stirred(KEEPING[name](len(size))).train()
    x = torch.randn(1, 8, *size)
    before = x.clone()
    y = part(x)
    assert y.shape == (1, getattr(part, "outputs", 8), *size)
    assert torch.equal(x, before)
    y.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in part.parameters())


@pytest.mark.parametrize("name", ["non-local", "position", "channel", "criss-cross"])
def test_new_attention_lets_the_map_pass(name):
    x = torch.randn(2, 8, 4, 5)
    assert torch.equal(KEEPING[name](2).eval()(x), x)


def test_a_pyramid_of_one_bin_adds_the_mean_everywhere():
    pyramid = _context.PyramidPooling(2, 2, (1,), norm="none", width=1)
    with torch.no_grad():
        pyramid.convs[0][0].weight.copy_(torch.tensor([1.0, 0]).view(1, 2, 1, 1))
        pyramid.convs[0][0].bias.zero_()
    x = torch.rand(1, 2, 3, 4)
    torch.testing.assert_close(pyramid(x), torch.cat((x, x[:, :1].mean().expand(1, 1, 3, 4)), 1))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_large_kernel_sees_a_whole_square_or_cube(dims):
    x = torch.zeros(1, 1, *[9] * dims)
    x[(0, 0, *[4] * dims)] = 1
    layer = _context.LargeKernel(dims, 1, 1, 5)
    for weight in layer.parameters():
        nn.init.zeros_(weight) if weight.ndim == 1 else nn.init.ones_(weight)
    square = torch.zeros_like(x)
    square[(0, 0, *[slice(2, 7)] * dims)] = dims
    assert torch.equal(layer(x), square)


def test_non_local_by_hand():
    torch.manual_seed(0)
    part = _attention.NonLocal(2, 3, 2, norm="none")
    x = torch.randn(1, 3, 2, 3)
    theta, phi, g = (conv(x).flatten(2)[0].T for conv in (part.theta, part.phi, part.g))  # (N, 2)
    seen = (theta @ phi.T).softmax(1) @ g
    expected = x + part.w[0](seen.T.reshape(1, 2, 2, 3))
    torch.testing.assert_close(part(x), expected)


def test_few_voxels_are_looked_at_in_a_large_map():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert _attention.thinned(x, 64) is x
    assert torch.equal(_attention.thinned(x, 63), nn.functional.avg_pool2d(x, 2))
    assert _attention.thinned(torch.zeros(1, 1, 40, 40, 40)).shape[2:] == (14, 14, 14)
    with torch.device("meta"):
        part, volume = _attention.PositionAttention(3, 8, 4), torch.zeros(1, 8, 96, 96, 96)
        assert part(volume).shape == volume.shape


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)], ids=str)
def test_criss_cross_by_hand(size):
    torch.manual_seed(0)
    part = stirred(_attention.CrissCross(len(size), 3, 2))
    x = torch.randn(1, 3, *size)
    query, key, value = part.query(x)[0], part.key(x)[0], part.value(x)[0]
    expected = torch.empty_like(x)
    for place in torch.cartesian_prod(*map(torch.arange, size)):
        others = torch.cartesian_prod(*map(torch.arange, size))
        cross = others[(others != place).sum(1) <= 1]
        at = (slice(None), *cross.T)
        weights = (query[(slice(None), *place)] @ key[at]).softmax(0)
        here = (0, slice(None), *place)
        expected[here] = x[here] + 0.5 * value[at] @ weights
    torch.testing.assert_close(part(x), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_criss_cross_reaches_everywhere_after_as_many_turns_as_axes(dims):
    part = stirred(_attention.CrissCross(dims, 3, 2))
    x = torch.randn(1, 3, *[4] * dims, requires_grad=True)
    y, seen = x, []
    for _ in range(dims):
        y = part(y)
        (slope,) = torch.autograd.grad(y[(0, 0, *[0] * dims)], x, retain_graph=True)
        seen.append(int(slope[0].any(0).sum()))
    assert seen == ([7, 16] if dims == 2 else [10, 37, 64])


def test_channel_attention_by_hand():
    part = stirred(_attention.ChannelAttention())
    x = torch.randn(1, 3, 2, 2)
    flat = x[0].flatten(1)
    expected = x[0] + 0.5 * ((-flat @ flat.T).softmax(1) @ flat).view(3, 2, 2)
    torch.testing.assert_close(part(x)[0], expected)


def test_bases_move_in_training_alone():
    torch.manual_seed(0)
    part = _regions.EMAttention(2, 6, 3).eval()
    before, x = part.mu.clone(), torch.randn(2, 6, 5, 4)
    part(x)
    assert torch.equal(part.mu, before)
    part.train()(x)
    assert not torch.equal(part.mu, before)
    torch.testing.assert_close(part.mu.norm(dim=1), torch.ones(1, 3), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("size", [(4, 6), (3, 4, 2)], ids=str)
def test_regions_of_certain_scores_are_means_of_their_voxels(size):
    torch.manual_seed(0)
    part = _regions.ObjectContext(len(size), 4, 2, dropout=0, norm="none")
    x, found = torch.randn(2, 4, *size), []
    part.value.register_forward_hook(lambda module, inputs, y: found.append(inputs[0]))
    truth = torch.zeros(2, *size, dtype=torch.long)
    truth[:, : size[0] // 2] = 1
    scores = 1e4 * nn.functional.one_hot(truth, 2).movedim(-1, 1).float()
    assert part(x, scores).shape == x.shape
    for label in (0, 1):
        mean = torch.stack([x[n][:, truth[n] == label].mean(1) for n in range(2)])
        torch.testing.assert_close(found[0][:, :, label].flatten(1), mean)


def test_a_closed_gate_lets_nothing_through():
    gate = _attention.Gate(2, 4, 2, "none")
    nn.init.zeros_(gate.psi[0].weight)
    nn.init.constant_(gate.psi[0].bias, -1e4)
    assert not gate(torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)).any()
