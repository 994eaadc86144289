import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.losses import LossContext, create_loss


def plain(errors: np.ndarray, erosions: int, alpha: float) -> float:
    """As the authors' code has it, one mask at a time."""
    kernel = ndimage.generate_binary_structure(errors.ndim, 1) / (2 * errors.ndim + 1)
    total = np.zeros_like(errors)
    for k in range(1, erosions + 1):
        errors = np.maximum(ndimage.convolve(errors, kernel, mode="constant") - 0.5, 0)
        if np.ptp(errors):
            errors = (errors - errors.min()) / np.ptp(errors)
        total += errors * k**alpha
    return total.mean()


@pytest.mark.parametrize("size", [(15, 12), (9, 8, 10)])
@pytest.mark.parametrize(("erosions", "alpha"), [(10, 2.0), (3, 1.0)])
def test_equals_the_plain_way(size, erosions, alpha):
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(2, *size, dtype=int)
    target[:, 2:7, 1:6] = 1
    logits = torch.zeros(2, 2, *size)
    logits[:, 1] = torch.where(target.bool(), -2.5, -4) + 0.3 * torch.randn(target.shape, generator=generator)
    errors = (logits.softmax(1)[:, 1] - target).square().double().numpy()
    expected = np.mean([plain(one, erosions, alpha) for one in errors])
    loss = create_loss("hausdorff_erosion", erosions=erosions, alpha=alpha)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_a_patch_that_is_wrong_all_over_equals_the_plain_way():
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 7, 9)
    value = create_loss("hausdorff_erosion")(logits, torch.ones(1, 7, 9, dtype=int)).item()
    assert value == pytest.approx(plain(np.ones((7, 9)), 10, 2.0), rel=1e-4)


def missed(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(1, 24, 24, dtype=int)
    target[0, 4 : 4 + width, 4:20] = 1
    return torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 24, 24), target


def test_thick_errors_cost_more_than_thin_ones():
    cost = [create_loss("hausdorff_erosion")(*missed(width)).item() for width in (2, 4, 8)]
    assert 0 < cost[0] < cost[1] < cost[2]


def test_a_single_voxel_is_gone_after_one_erosion():
    logits, target = missed(1)
    target[0, :, 5:] = 0
    assert create_loss("hausdorff_erosion")(logits, target).item() == 0


def test_a_step_is_as_wide_as_the_smallest_spacing():
    """Voxels three times as long along one axis: every third erosion acts along it."""
    logits, target = missed(8)
    loss = create_loss("hausdorff_erosion", alpha=1)
    plain_cost = loss(logits, target)
    torch.testing.assert_close(loss(logits, target, LossContext(spacing_mm=(0.5, 0.5))), 0.5 * plain_cost)
    assert loss(logits, target, LossContext(spacing_mm=(3.0, 1.0))) > plain_cost


def test_added_dice(batch):
    alone, dice = create_loss("hausdorff_erosion")(*batch), create_loss("dice", squared=True)(*batch)
    torch.testing.assert_close(create_loss("hausdorff_erosion", dice_weight=2)(*batch), alone + 2 * dice)
