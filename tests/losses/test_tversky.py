import pytest
import torch
from monai.losses import TverskyLoss

from medseg.losses import create_loss


def test_worked_example(grid):
    assert 1 - create_loss("tversky")(*grid).item() == pytest.approx(0.7447, abs=1e-4)


def test_one_half_is_dice(batch):
    tversky, dice = create_loss("tversky", beta=0.5, smooth=0), create_loss("dice", smooth=0)
    torch.testing.assert_close(tversky(*batch), dice(*batch))


def test_low_beta_forgives_what_is_invented(grid):
    logits, target = grid
    every, none = torch.zeros_like(logits), torch.zeros_like(logits)
    every[:, 1], none[:, 0] = 50, 50
    values = [create_loss("tversky", beta=beta)(every, target).item() for beta in (0.1, 0.5, 0.9)]
    assert values == sorted(values)
    assert create_loss("tversky", beta=0.1)(none, target).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("beta", [0.3, 0.8])
def test_equals_monai(batch, beta):
    logits, target = batch
    oracle = TverskyLoss(softmax=True, to_onehot_y=True, include_background=False, alpha=beta, beta=1 - beta)
    loss = create_loss("tversky", beta=beta)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)
