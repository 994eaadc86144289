import pytest
import torch
from monai.losses import AsymmetricUnifiedFocalLoss

from medseg.losses import create_loss


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("delta", "gamma"), [(0.7, 0.5), (0.6, 0.2)])
def test_equals_monai(grid, share, delta, gamma):
    logits, target = grid[0] / 20, grid[1]
    oracle = AsymmetricUnifiedFocalLoss(to_onehot_y=True, weight=share, gamma=gamma, delta=delta)
    # monai divides the cross entropy by the number of classes too
    options = {"focal_share": share / (2 - share), "delta": delta, "gamma": gamma, "smooth": 1e-7}
    expected = oracle(logits.softmax(1), target[:, None])
    value = create_loss("unified_focal", **options)(logits, target) * (1 - share / 2)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def test_without_focus_it_is_cross_entropy_and_tversky(batch):
    for symmetric in (False, True):
        unified = create_loss("unified_focal", gamma=0, delta=0.6, symmetric=symmetric)
        entropy = create_loss("balanced_cross_entropy", beta=0.6)(*batch)
        tversky = create_loss("tversky", beta=0.4, include_background=True)(*batch)
        torch.testing.assert_close(unified(*batch), (entropy + tversky) / 2)


def test_symmetric_by_the_formula(grid):
    logits, t = grid[0].double() / 20, grid[1]
    p = logits.softmax(1)[:, 1]
    loss = create_loss("unified_focal", symmetric=True, focal_share=1, gamma=0.3)
    expected = -(0.6 * t * (1 - p) ** 0.3 * p.log() + 0.4 * (1 - t) * p**0.3 * (1 - p).log()).mean()
    torch.testing.assert_close(loss(logits, t), expected)


def test_one_sigmoid_channel_has_the_same_cross_entropy(grid):
    logits, target = grid[0] / 20, grid[1]
    loss = create_loss("unified_focal", activation="sigmoid", focal_share=1)
    difference = (logits[:, 1:] - logits[:, :1]).contiguous()
    torch.testing.assert_close(loss(difference, target), create_loss("unified_focal", focal_share=1)(logits, target))
