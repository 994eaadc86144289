import pytest
import torch
from torch import nn

from medseg.models._recurrent import BothWays, ConvLSTM, Sweeps, in_plane


@pytest.mark.parametrize("backward", [False, True])
def test_at_a_single_place_it_is_an_lstm(backward):
    """Of torch, whose gates come in the order let in, forget, new, let out."""
    ours, theirs = ConvLSTM(2, 3, 2, 1, backward=backward), nn.LSTM(3, 2, batch_first=True)
    order = torch.tensor([2, 3, 0, 1, 6, 7, 4, 5])
    with torch.no_grad():
        ours.see.weight.copy_(theirs.weight_ih_l0[order].view(8, 3, 1, 1))
        ours.see.bias.copy_((theirs.bias_ih_l0 + theirs.bias_hh_l0)[order])
        ours.remember.weight.copy_(theirs.weight_hh_l0[order].view(8, 2, 1, 1))
    x = torch.randn(2, 3, 1, 6)
    sequence = x[:, :, 0].transpose(1, 2)
    expected, _ = theirs(sequence.flip(1) if backward else sequence)
    expected = expected.flip(1) if backward else expected
    torch.testing.assert_close(ours(x)[:, :, 0].transpose(1, 2), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_slice_knows_those_before_it_alone(dims):
    x = torch.rand(1, 1, *(4,) * (dims - 1), 5, requires_grad=True)
    for backward, known in ((False, [0, 1, 2]), (True, [2, 3, 4])):
        (slope,) = torch.autograd.grad(ConvLSTM(dims, 1, 2, 3, backward=backward)(x)[..., 2].sum(), x)
        assert slope.abs().amax(tuple(range(dims + 1))).nonzero().flatten().tolist() == known
    (slope,) = torch.autograd.grad(BothWays(dims, 1, 2, 3)(x)[..., 2].sum(), x)
    assert slope.abs().amax(tuple(range(dims + 1))).all()


def test_kernels_and_strides_leave_slices_to_themselves():
    assert in_plane(3, 3) == (3, 3, 1)
    assert in_plane(2, (5, 3)) == (5, 1)


@pytest.mark.parametrize("size", [(4, 6), (3, 4, 5)], ids=str)
def test_after_all_sweeps_each_element_knows_all(size):
    sweeps = Sweeps(len(size), 2, 3).double()
    assert len(sweeps.sweeps) == len(size)
    x = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    y = sweeps(x)
    assert y.shape == (1, 6, *size)
    (slope,) = torch.autograd.grad(y[(0, slice(None), *(n // 2 for n in size))].sum(), x)
    assert slope.all()


def test_the_first_sweep_goes_along_the_first_axis():
    sweeps = Sweeps(2, 2, 3)
    x = torch.rand(1, 2, 4, 5)
    column, _ = sweeps.sweeps[0](x[:, :, :, 1].transpose(1, 2))
    row = torch.stack([sweeps.sweeps[0](x[:, :, :, n].transpose(1, 2))[0][:, 2] for n in range(5)], dim=1)
    torch.testing.assert_close(row[:, 1], column[:, 2])
    torch.testing.assert_close(sweeps(x)[:, :, 2].transpose(1, 2), sweeps.sweeps[1](row)[0])


def test_a_patch_is_seen_as_one():
    sweeps = Sweeps(2, 1, 1, patch=2)
    seen = []
    sweeps.sweeps[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    sweeps(torch.arange(12.0).view(1, 1, 4, 3))
    # the last of three columns is repeated; the first block holds 0 1 / 3 4
    assert sorted(seen[0][0, 0].tolist()) == [0, 1, 3, 4]
    assert seen[0].shape == (2, 2, 4)
