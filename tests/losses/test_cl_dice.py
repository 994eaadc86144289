import pytest
import torch
from monai.losses import SoftclDiceLoss, SoftDiceclDiceLoss
from monai.losses.cldice import soft_skel

from medseg.losses import create_loss
from medseg.losses._morphology import dilate, erode, skeleton


@pytest.mark.parametrize("shape", [(2, 1, 9, 12), (1, 2, 8, 7, 6), (1, 1, 1, 5)])
@pytest.mark.parametrize("iterations", [0, 3])
def test_skeleton_equals_monai(shape, iterations):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(skeleton(values, iterations), soft_skel(values, iterations))


def test_a_bar_keeps_its_middle():
    bar = torch.zeros(1, 1, 9, 20)
    bar[..., 3:6, 2:18] = 1
    found = skeleton(bar, 3)[0, 0]
    assert found[4, 3:17].eq(1).all()
    assert not found[[0, 1, 2, 3, 5, 6, 7, 8]].any()


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_equals_monai(grid, alpha):
    """Of one structure; of several, monai sums them up before comparing. It adds 1e-4 below the last fraction bar."""
    logits, target = grid[0] / 20, grid[1]
    options = {"softmax": True, "include_background": False, "to_onehot_y": True, "smooth": 1e-9}
    oracle = SoftclDiceLoss(**options) if alpha == 1 else SoftDiceclDiceLoss(alpha=alpha, **options)
    loss = create_loss("cl_dice", alpha=alpha)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)


def test_a_gap_costs_more_than_a_thinner_wall():
    """Both lack the same number of voxels of a vessel three wide."""
    target = torch.zeros(1, 15, 30, dtype=int)
    target[:, 6:9] = 1
    gap, thin = target.clone(), target.clone()
    gap[:, :, 10:20] = 0
    thin[:, 6] = 0
    gap_cost, thin_cost = (
        create_loss("cl_dice")(torch.stack([1 - answer, answer], 1) * 100.0, target) for answer in (gap, thin)
    )
    assert gap_cost > 2 * thin_cost
    dice = [create_loss("dice")(torch.stack([1 - a, a], 1) * 100.0, target) for a in (gap, thin)]
    torch.testing.assert_close(*dice)


def test_without_smoothing_nothing_right_is_the_worst():
    target = torch.zeros(1, 6, 6, dtype=int)
    target[:, :2] = 1
    logits = torch.stack([target, 1 - target], 1) * 200.0
    assert create_loss("cl_dice", smooth=0)(logits, target).item() == pytest.approx(1)


def test_slopes_of_a_skeleton_equal_monai():
    values = torch.rand(2, 1, 8, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((make(values, 3) * weights).sum(), values)[0] for make in (skeleton, soft_skel)
    )
    torch.testing.assert_close(found, expected)


def test_equal_neighbours_have_one_slope_between_them():
    values = torch.arange(25.0).fmod(3).clamp(max=1).view(1, 1, 5, 5).requires_grad_()
    for change in (erode, dilate):
        (slope,) = torch.autograd.grad(change(values).sum(), values)
        assert slope.sum() == 25


def test_a_mask_in_bytes_has_the_same_skeleton():
    mask = torch.rand(1, 2, 9, 8, 7, generator=torch.Generator().manual_seed(0)) > 0.3
    valid = torch.ones(1, 1, 9, 8, 7)
    valid[:, :, 6:] = 0
    for counted in (None, valid):
        whole, single = (
            (mask if counted is None else mask & counted.bool()).to(kind) for kind in (torch.int8, torch.float32)
        )
        found = skeleton(whole, 3, counted)
        assert found.dtype == torch.int8
        assert torch.equal(found.float(), skeleton(single, 3, counted))


def test_a_vessel_goes_on_where_nobody_looked():
    bar = torch.zeros(1, 1, 9, 20)
    bar[..., 3:6, 2:] = 1
    valid = torch.ones(1, 1, 9, 20)
    valid[..., 14:] = 0
    assert torch.equal(skeleton(bar * valid, 3, valid)[..., :14], skeleton(bar[..., :14], 3))
    assert skeleton(bar * valid, 3, valid)[0, 0, 4, 3:14].eq(1).all()
