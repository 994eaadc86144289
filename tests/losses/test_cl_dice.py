import pytest
import torch
from monai.losses import SoftclDiceLoss, SoftDiceclDiceLoss
from monai.losses.cldice import soft_skel

from medseg.losses import create_loss
from medseg.losses._morphology import skeleton


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
