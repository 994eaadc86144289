import math

import pytest
import torch
import torch.nn.functional as F

from medseg.losses import LossContext, create_loss


def test_a_gap_of_two_pixels_by_hand():
    """Objects 3 pixels apart: in the gap d1 + d2 = 3 voxels, and beyond the objects 3 more each step."""
    target = torch.tensor([[[1, 0, 0, 1, 0]]])
    logits = torch.zeros(1, 2, 1, 5)
    gaps = [math.exp(-(away**2) / (2 * 5**2)) for away in (3, 3, 1 + 4)]
    expected = math.log(2) * (5 + 10 * sum(gaps)) / 5
    loss = create_loss("distance_weighted_cross_entropy")
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)
    apart = [math.exp(-((2 * away) ** 2) / (2 * 5**2)) for away in (3, 3, 1 + 4)]
    value = loss(logits, target, LossContext(spacing_mm=(1.0, 2.0, 9.0))).item()
    assert value == pytest.approx(math.log(2) * (5 + 10 * sum(apart)) / 5, rel=1e-5)


def test_one_object_is_plain_cross_entropy():
    target = torch.zeros(1, 8, 8, dtype=int)
    target[0, 2:5, 3:6] = 1
    logits = torch.randn(1, 2, 8, 8)
    value = create_loss("distance_weighted_cross_entropy")(logits, target)
    torch.testing.assert_close(value, F.cross_entropy(logits, target))


def test_the_gap_has_the_steepest_slope():
    """As printed in the review, the map would be added, and have no slope at all."""
    target = torch.zeros(1, 9, 21, dtype=int)
    target[0, 3:6, 2:9] = target[0, 3:6, 11:19] = 1
    logits = torch.zeros(1, 2, 9, 21, requires_grad=True)
    create_loss("distance_weighted_cross_entropy", sigma=3)(logits, target).backward()
    slopes = logits.grad[0, 1]
    assert slopes[4, 9] > 2 * slopes[0, 0] > 0
    assert slopes[4, 5] == pytest.approx(-slopes[0, 0].item(), rel=1e-4)


def test_weights_of_classes_are_added_to_the_map():
    target = torch.tensor([[[1, 0, 1]]])
    gap = 10 * math.exp(-4 / 50)
    loss = create_loss("distance_weighted_cross_entropy", class_weights=(3, 7))
    value = loss(torch.zeros(1, 2, 1, 3), target).item()
    assert value == pytest.approx(math.log(2) * (7 + 3 + gap + 7) / 3, rel=1e-5)
