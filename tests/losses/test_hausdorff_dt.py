import pytest
import torch
from monai.losses import HausdorffDTLoss

from medseg import distance
from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss


def test_a_power_that_no_number_holds_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.alpha: expected a number less than or equal to 10"):
        create_loss("hausdorff_dt", alpha=100)


def test_one_row_by_hand():
    """Truth 1 1 0 0, answer 0 0 0 0 for certain: errors of 1 at distances 2 and 1 (in steps of 3 mm)."""
    target = torch.tensor([[[1, 1, 0, 0]]])
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    assert create_loss("hausdorff_dt")(logits, target).item() == pytest.approx((4 + 1) / 4)
    context = LossContext(spacing_mm=(9.0, 3.0, 1.0))
    assert create_loss("hausdorff_dt", alpha=1)(logits, target, context).item() == pytest.approx((6 + 3) / 4)


@pytest.mark.parametrize("background", [False, True])
def test_equals_monai(batch, background):
    logits, target = batch
    oracle = HausdorffDTLoss(softmax=True, to_onehot_y=True, include_background=background)
    loss = create_loss("hausdorff_dt", include_background=background)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=1e-5)


def test_farther_errors_cost_more():
    target = torch.zeros(1, 1, 20, dtype=int)
    target[..., :5] = 1
    values = []
    for place in (6, 10, 19):
        answer = target.clone()
        answer[..., place] = 1
        values.append(create_loss("hausdorff_dt")(torch.stack([1 - answer, answer], 1) * 100.0, target).item())
    assert values == sorted(values)
    assert values[0] < values[1] < values[2]


def test_added_dice(batch):
    alone, dice = create_loss("hausdorff_dt")(*batch), create_loss("dice", squared=True)(*batch)
    torch.testing.assert_close(create_loss("hausdorff_dt", dice_weight=2)(*batch), alone + 2 * dice)


def test_same_value_by_tensor_operations(batch, monkeypatch):
    """What an accelerator computes, computed here."""
    expected = create_loss("hausdorff_dt")(*batch)
    monkeypatch.setattr("medseg.losses._maps.to_boundary_batch", distance._to_boundary_tensor)
    torch.testing.assert_close(create_loss("hausdorff_dt")(*batch), expected)
