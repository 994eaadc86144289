import math

import pytest
import torch
import torch.nn.functional as F

from medseg.losses import LossContext, create_loss


def test_one_row_by_hand():
    target = torch.tensor([[[0, 0, 0, 1]]])
    weights = [1 + 2 * math.exp(-away * 1.5 / 4) for away in (3, 2, 1, 1)]
    loss = create_loss("distance_weighted", alpha=2, decay=4)
    value = loss(torch.zeros(1, 2, 1, 4), target, LossContext(spacing_mm=(1.0, 1.5)))
    assert value.item() == pytest.approx(math.log(2) * sum(weights) / 4)


def test_without_a_boundary_it_is_cross_entropy(batch):
    logits, target = batch
    target[:] = 2
    torch.testing.assert_close(create_loss("distance_weighted")(logits, target), F.cross_entropy(logits, target))
