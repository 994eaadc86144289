import pytest
import torch

from medseg.losses import create_loss


def disc() -> torch.Tensor:
    i, j = torch.meshgrid(torch.arange(21), torch.arange(21), indexing="ij")
    return ((i - 10) ** 2 + (j - 10) ** 2 < 65).long()[None]


def cost(answer: torch.Tensor, target: torch.Tensor, **options: int) -> float:
    return float(create_loss("star_shape", **options)(torch.stack([1 - answer, answer], 1) * 100.0, target))


def test_a_missed_voxel_costs_the_break_on_its_line():
    """Of the last voxel's line, every place from the centre on but the last is found."""
    target = torch.zeros(1, 1, 9, dtype=int)
    target[..., 0:9] = 1
    answer = target.clone()
    answer[..., 8] = 0
    assert cost(answer, target, steps=4) == pytest.approx(1 / 9, rel=1e-5)
    answer[..., 5] = 0  # beside the centre: it lies on this line, and three places of its own are the centre
    assert cost(answer, target, steps=4) == pytest.approx((3 / 4 + 3 / 4) / 9, rel=1e-5)


def test_a_hole_costs_more_than_a_rim_and_nothing_costs_nothing():
    target = disc()
    hole, rim, none = target.clone(), target.clone(), torch.zeros_like(target)
    hole[0, 9:12, 5:8] = 0
    rim[0, 9:12, 2:5] = 0
    assert cost(target, target) == 0
    assert cost(none, target) == 0
    assert cost(hole, target) > 0
    assert cost(rim, target) > 0


def test_found_beyond_a_gap_is_a_break_too():
    """A ring of the object is missed: what lies farther out is right, and costs nothing by itself."""
    target = disc()
    i, j = torch.meshgrid(torch.arange(21), torch.arange(21), indexing="ij")
    away = ((i - 10) ** 2 + (j - 10) ** 2).float().sqrt()
    ring = target * ~((away > 4) & (away < 6))
    assert cost(ring, target) > cost(target, target)


def test_a_volume_and_two_structures():
    target = torch.zeros(2, 9, 8, 7, dtype=int)
    target[:, 1:4, 2:6, 2:5], target[:, 5:8, 2:6, 2:5] = 1, 2
    logits = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 100.0
    loss = create_loss("star_shape")
    assert loss(logits, target).item() == 0
    logits[:, :, 2, 3, 4] = logits[:, :, 0, 0, 0]
    assert loss(logits, target) > 0
