import pytest
import torch
from monai.losses import BoundaryLoss

from medseg.losses import LossContext, create_loss


def test_one_row_by_hand():
    """phi is 2, 1 | -1, -2, -3 steps of 3 mm; all is predicted for certain."""
    target = torch.tensor([[[0, 0, 1, 1, 1]]])
    logits = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 1, 5)
    assert create_loss("boundary")(logits, target).item() == pytest.approx((2 + 1 - 1 - 2 - 3) / 5)
    value = create_loss("boundary")(logits, target, LossContext(spacing_mm=(1.0, 3.0, 7.0)))
    assert value.item() == pytest.approx(3 * (2 + 1 - 1 - 2 - 3) / 5)


@pytest.mark.parametrize("background", [False, True])
def test_equals_monai(batch, background):
    """But for one voxel inside: monai's phi is 0 at the innermost side of the boundary, ours one step on either side."""
    logits, target = batch
    oracle = BoundaryLoss(softmax=True, to_onehot_y=True, include_background=background)
    first = 0 if background else 1
    inside = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)[:, first:]
    step = (logits.softmax(1)[:, first:] * inside).mean()
    value = create_loss("boundary", include_background=background)(logits, target)
    torch.testing.assert_close(value + step, oracle(logits, target[:, None]), atol=1e-5, rtol=0)


def test_the_truth_has_the_least(batch):
    logits, target = batch
    best = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 200.0
    loss = create_loss("boundary")
    assert loss(best, target) < min(loss(values, target) for values in (logits, 0 * logits, best.roll(1, 1)))


def test_the_share_of_generalised_dice_falls(batch):
    region = create_loss("generalised_dice", include_background=False)(*batch)
    alone = create_loss("boundary")(*batch)
    loss = create_loss("boundary", alpha={"from": 1, "to": 0.01, "over": 0.8})
    for progress, share in ((0.0, 1.0), (0.4, 0.505), (0.8, 0.01), (1.0, 0.01)):
        expected = share * region + (1 - share) * alone
        torch.testing.assert_close(loss(*batch, LossContext(progress=progress)), expected)


def test_a_structure_without_a_boundary_costs_nothing():
    logits = torch.randn(1, 2, 6, 6)
    for value in (0, 1):
        assert create_loss("boundary")(logits, torch.full((1, 6, 6), value)).item() == 0


def test_what_is_ignored_is_on_no_side():
    """phi is 2, 1 | -1, -2, ignored, -4; all is predicted for certain."""
    target = torch.tensor([[[0, 0, 1, 1, -1, 1]]])
    logits = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 1, 6)
    assert create_loss("boundary")(logits, target).item() == pytest.approx((2 + 1 - 1 - 2 - 4) / 5)
