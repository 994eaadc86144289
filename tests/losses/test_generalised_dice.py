import pytest
import torch
from monai.losses import GeneralizedDiceLoss

from medseg.losses import create_loss


def test_worked_example(grid):
    assert create_loss("generalised_dice")(*grid).item() == pytest.approx(0.1793, abs=1e-4)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_equals_monai(batch, background, batched, absent):
    logits, target = batch
    if absent:
        target[target == 2] = 1
    oracle = GeneralizedDiceLoss(softmax=True, to_onehot_y=True, include_background=background, batch=batched)
    loss = create_loss("generalised_dice", include_background=background, batch=batched, smooth=1e-5)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)


def test_large_structures_keep_their_slope():
    """Weights of 1e-10 are drowned by a constant of 1e-5; the default has none."""
    target = torch.zeros(1, 400, 500, dtype=int)
    target[:, :200] = 1
    logits = torch.zeros(1, 2, 400, 500)
    assert create_loss("generalised_dice")(logits, target).item() == pytest.approx(0.5, abs=1e-4)
