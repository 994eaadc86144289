import pytest
import torch
from torch import nn

from medseg.models import parameters
from medseg.models.ccnet import Recurrent


@pytest.mark.parametrize(("preset", "expected"), [("resnet50", 47_442_132), ("resnet101", 66_434_260)])
def test_weights(preset, expected):
    assert parameters("ccnet", preset=preset, spatial_dims=2, in_channels=3, out_channels=19) == expected


def test_repetition_costs_no_weights():
    counts = {parameters("ccnet", preset="tiny", spatial_dims=3, recurrence=times) for times in (1, 3)}
    assert len(counts) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_corner_reaches_the_opposite_one_in_as_many_steps_as_axes(dims):
    torch.manual_seed(0)
    seen = {}
    for times in (dims - 1, dims):
        part = Recurrent(dims, 4, 8, times, "batch").eval()
        nn.init.constant_(part.attention.gamma, 1.0)
        x = torch.randn(1, 4, *[8] * dims).requires_grad_()
        far = part(x)[(..., *[7] * dims)]
        (slope,) = torch.autograd.grad(far.sum(), x)
        seen[times] = slope[(..., *[0] * dims)].abs().sum()
    assert seen[dims - 1] == 0 < seen[dims]
