import pytest
import torch
from monai.losses import DiceCELoss

from medseg.losses import create_loss


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_equals_monai(batch, batched, squared):
    logits, target = batch
    oracle = DiceCELoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        batch=batched,
        squared_pred=squared,
        lambda_dice=0.7,
        lambda_ce=1.9,
    )
    loss = create_loss("dice_ce", batch=batched, squared=squared, dice_weight=0.7, ce_weight=1.9)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_is_the_sum_of_its_parts(overlapping, activation):
    logits, memberships = overlapping
    target = memberships.argmax(1) if activation == "softmax" else memberships
    options = {"activation": activation, "class_weights": (1, 2, 5)}
    dice = create_loss("dice", **options)(logits, target)
    entropy = create_loss("cross_entropy", reduction="weighted_mean", **options)(logits, target)
    torch.testing.assert_close(create_loss("dice_ce", **options)(logits, target), dice + entropy)


def test_the_size_of_class_weights_does_not_matter(batch):
    one, many = (create_loss("dice_ce", class_weights=(w, 2 * w, 5 * w)) for w in (1, 100))
    torch.testing.assert_close(one(*batch), many(*batch))
