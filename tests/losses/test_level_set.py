import pytest
import torch

from medseg.losses import LossContext, create_loss


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """An image of two values in halves, and the mask of the brighter one."""
    mask = torch.zeros(1, 8, 6, dtype=int)
    mask[:, 4:] = 1
    return 3.0 * mask[:, None] - 1, mask


def certain(mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - mask, mask], 1) * 100.0


def test_by_hand():
    """One class over both values: they are 1.5 from their mean. The edge of two classes counts for both."""
    image, mask = scene()
    loss, context = create_loss("level_set", length_weight=0.2), LossContext(image=image)
    assert loss(certain(0 * mask), mask, context).item() == pytest.approx(1.5**2, abs=1e-3)
    assert loss(certain(mask), mask, context).item() == pytest.approx(0.2 * 2 * 6 / 48, abs=1e-3)


def test_the_image_tells_what_the_truth_does_not():
    image, mask = scene()
    nobody = torch.full_like(mask, -1)
    shifted = mask.roll(1, 1)
    costs = [
        create_loss("level_set")(certain(answer), nobody, LossContext(image=image)).item()
        for answer in (mask, shifted, 0 * mask)
    ]
    assert costs == sorted(costs)
    assert costs[0] < costs[1]


def test_one_sigmoid_channel_is_two_classes():
    image, mask = scene()
    logits = torch.randn(1, 1, 8, 6)
    both = create_loss("level_set", length_weight=0)(torch.cat([0 * logits, logits], 1), mask, LossContext(image=image))
    one = create_loss("level_set", length_weight=0, activation="sigmoid")(logits, mask, LossContext(image=image))
    torch.testing.assert_close(one, both)
