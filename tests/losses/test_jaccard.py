import pytest
import torch
from monai.losses import DiceLoss

from medseg.losses import create_loss


def test_worked_example(grid):
    assert 1 - create_loss("jaccard")(*grid).item() == pytest.approx(7 / 11, abs=1e-5)
    assert 1 - create_loss("jaccard", include_background=True)(*grid).item() == pytest.approx(0.7071, abs=1e-4)


def test_follows_from_dice(grid):
    logits, target = grid[0] / 30, grid[1]
    dice = 1 - create_loss("dice", smooth=0)(logits, target)
    torch.testing.assert_close(1 - create_loss("jaccard", smooth=0)(logits, target), dice / (2 - dice))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_equals_monai(batch, background, batched):
    logits, target = batch
    smooth = {"smooth_nr": 0.2, "smooth_dr": 0.2}  # monai adds it to twice the overlap and twice the union
    oracle = DiceLoss(
        softmax=True, to_onehot_y=True, include_background=background, batch=batched, jaccard=True, **smooth
    )
    loss = create_loss("jaccard", include_background=background, batch=batched, smooth=0.1)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)
