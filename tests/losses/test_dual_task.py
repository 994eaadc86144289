import math

import pytest
import torch
from torch.autograd import gradcheck

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss
from medseg.losses.dual_task import potential
from medseg.models import Output, create_model

LAMBDAS = ("boundary_weight", "ce_weight", "contour_weight", "agreement_weight")
ROW = torch.tensor([[[0, 0, 0, 1, 1, 1]]])  # one boundary, of a voxel on either side
SLOPES = (0, 0.25, 0.5, 0.25, 0, 0)  # of the row blurred by (1, 2, 1) / 4


def alone(name, **options):
    """The loss with one of its terms."""
    return create_loss("dual_task", **{weight: float(weight == name) for weight in LAMBDAS}, **options)


def row(logits, boundary):
    """Both outputs for the row: logits of class 1 against 0, and of boundaries."""
    logits, boundary = (torch.tensor(values).expand(6).view(1, 1, 1, 6) for values in (logits, boundary))
    return Output(torch.cat([-logits, logits], 1) / 2, boundary=boundary)


def test_boundaries_that_are_undecided():
    """Either side weighs as much as the other: 2 of 6 voxels by 4/6, 4 of 6 by 2/6."""
    value = alone("boundary_weight")(row([0.0], [0.0]), ROW)
    assert value.item() == pytest.approx(math.log(2) * (2 * 4 / 6 + 4 * 2 / 6) / 6)


def test_boundaries_that_are_found():
    found = [-50.0, -50.0, 50.0, 50.0, -50.0, -50.0]
    assert alone("boundary_weight")(row([0.0], found), ROW).item() == pytest.approx(0, abs=1e-6)
    missed = alone("boundary_weight")(row([0.0], [-50.0]), ROW)
    assert missed.item() == pytest.approx(2 * 4 / 6 * 50 / 6)


def test_contours_of_an_answer_without_any():
    value = alone("contour_weight")(row([0.0], [0.0]), ROW)
    assert value.item() == pytest.approx(2 * sum(SLOPES) / math.sqrt(2) / 6, abs=1e-3)


def test_contours_of_a_right_and_of_a_shifted_answer():
    right, shifted = [-50.0] * 3 + [50.0] * 3, [-50.0] * 2 + [50.0] * 4
    assert alone("contour_weight")(row(right, [0.0]), ROW).item() == pytest.approx(0, abs=1e-6)
    apart = sum(abs(a - b) for a, b in zip(SLOPES, (*SLOPES[1:], 0), strict=True))
    value = alone("contour_weight")(row(shifted, [0.0]), ROW)
    assert value.item() == pytest.approx(2 * apart / math.sqrt(2) / 6, abs=1e-3)


def test_classes_count_once_more_where_a_boundary_is_sure():
    """Above .8 it is, in one voxel of class 0 and one of class 1."""
    sure, unsure = math.log(0.81 / 0.19), math.log(0.79 / 0.21)
    output = row([2.0], [unsure, sure, unsure, unsure, unsure, sure])
    costs = math.log1p(math.exp(2)), math.log1p(math.exp(-2))
    assert alone("agreement_weight")(output, ROW).item() == pytest.approx(sum(costs) / 6)
    assert alone("agreement_weight", threshold=0.7)(output, ROW).item() == pytest.approx(3 * sum(costs) / 6)


def test_the_sum_has_the_paper_s_weights(batch):
    logits, target = batch
    output = Output(logits, boundary=4 * torch.randn(2, 1, 5, 7, 4))
    terms = [alone(name)(output, target) for name in LAMBDAS]
    torch.testing.assert_close(terms[1], create_loss("cross_entropy")(logits, target))
    torch.testing.assert_close(create_loss("dual_task")(output, target), 20 * terms[0] + sum(terms[1:]))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_gradient_of_both_outputs(activation, overlapping):
    logits, target = (values[:1, :, :2, :3, :2] for values in overlapping)
    target = target.argmax(1) if activation == "softmax" else target
    boundary = torch.randn(1, 1, 2, 3, 2, dtype=torch.float64)
    inputs = [values.detach().double().contiguous().requires_grad_() for values in (logits, boundary)]
    loss = create_loss("dual_task", activation=activation, threshold=0.5)
    assert gradcheck(lambda z, s: loss(Output(z, boundary=s), target), inputs)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_plane_is_as_much_of_a_boundary_along_any_axis(dims):
    mask = torch.zeros(1, 1, *(9,) * dims)
    mask[:, :, 4:] = 1
    expected = torch.zeros_like(mask)
    expected[:, :, 2:5] = torch.tensor([0.25, 0.5, 0.25]).view(3, *(1,) * (dims - 1)) / dims**0.5
    for axis in range(2, dims + 2):
        found = potential(mask.transpose(2, axis))
        torch.testing.assert_close(found, expected.transpose(2, axis), atol=2e-4, rtol=1e-3)
    assert potential(torch.rand(1, 2, *(9,) * dims).round()).max() <= 1


def test_boundaries_come_with_the_output_or_in_the_context_at_any_resolution(batch):
    logits, target = batch
    loss, boundary = create_loss("dual_task"), torch.randn(2, 1, 5, 7, 4)
    expected = loss(Output(logits, boundary=boundary), target)
    given = LossContext(extras={"boundary": boundary})
    assert torch.equal(loss(logits, target, given), expected)
    assert torch.equal(
        loss(Output(logits, boundary=boundary), target, LossContext(extras={"boundary": -boundary})), expected
    )
    fine = torch.nn.functional.interpolate(boundary, scale_factor=2)
    torch.testing.assert_close(loss(logits, target, LossContext(extras={"boundary": fine})), expected)


def test_an_ignored_region_has_no_boundary():
    target = torch.zeros(1, 6, 6, dtype=int)
    target[:, 2:4] = -1
    output = Output(torch.zeros(1, 2, 6, 6), boundary=torch.randn(1, 1, 6, 6))
    assert alone("boundary_weight")(output, target).item() == 0
    assert alone("contour_weight")(output, target).item() == pytest.approx(0, abs=1e-6)


def test_a_network_without_boundaries_is_refused_in_one_line():
    net = create_model("unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").train()
    with pytest.raises(
        ConfigError, match=r"^loss 'dual_task' needs a network that also gives boundaries.*gated_scnn.*$"
    ):
        create_loss("dual_task")(net(torch.zeros(1, 1, 8, 8)), torch.zeros(1, 8, 8, dtype=int))


def test_boundaries_of_several_channels_are_refused(batch):
    context = LossContext(extras={"boundary": torch.zeros(2, 3, 5, 7, 4)})
    with pytest.raises(ConfigError, match="need one channel, whatever the classes are, got 3"):
        create_loss("dual_task")(*batch, context)
