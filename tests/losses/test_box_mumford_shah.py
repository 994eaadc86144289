import pytest
import torch

from medseg.losses import LossContext, create_loss


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A bright disc, its mask, and its box."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    mask = ((i - 7) ** 2 + (j - 8) ** 2 < 17).long()[None]
    box = torch.zeros_like(mask)
    box[:, 3:12, 4:13] = 1
    return 2.0 * mask[:, None] + 5, mask, box


def cost(answer: torch.Tensor, target: torch.Tensor, image: torch.Tensor, **options: float) -> float:
    logits = torch.stack([1 - answer, answer], 1) * 100.0
    loss = create_loss("box_mumford_shah", length_weight=0, **options)
    return float(loss(logits, target, LossContext(image=image)))


def test_the_disc_is_found_from_its_box_alone():
    image, mask, box = scene()
    assert cost(mask, box, image) == pytest.approx(0, abs=1e-5)
    share = mask.sum() / 81
    assert cost(box, box, image) == pytest.approx(4 * float(share * (1 - share)), rel=1e-4)
    assert cost(0 * mask, box, image) == pytest.approx(cost(box, box, image))


def test_a_mask_counts_as_its_box():
    image, mask, box = scene()
    for answer in (mask, box, mask.roll(2, 1)):
        assert cost(answer, mask, image) == cost(answer, box, image)


def test_what_is_found_outside_costs_its_share():
    image, mask, box = scene()
    answer = mask.clone()
    answer[:, 14:] = 1
    assert cost(answer, box, image, outside_weight=3) == pytest.approx(3 * 32 / (256 - 81), rel=1e-4)


def test_each_object_has_its_own_box():
    image, target = torch.zeros(1, 1, 10, 10), torch.zeros(1, 10, 10, dtype=int)
    target[0, 1:3, 1:3] = target[0, 6:9, 6:9] = 1
    between = torch.zeros_like(target)
    between[0, 4, 4] = 1
    assert cost(between, target, image) == pytest.approx(1 / (100 - 4 - 9), rel=1e-4)
