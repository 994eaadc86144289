import pytest
import torch

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss


def predicted(voxels: int) -> torch.Tensor:
    answer = (torch.arange(100) < voxels).view(1, 10, 10).float()
    return torch.stack([1 - answer, answer], 1) * 100


def test_bounds_in_the_wrong_order():
    with pytest.raises(
        ConfigError, match=r"loss\.bounds_ml: expected the lowest volume before the highest, got \[2\.0, 1\.0\]"
    ):
        create_loss("size_constraint", bounds_ml=[(0, 1), (2, 1)])


@pytest.mark.parametrize(("voxels", "cost"), [(20, 0), (22, 0), (25, 0.03**2), (18, 0), (15, 0.03**2), (100, 0.78**2)])
def test_within_a_tenth_of_the_true_size(voxels, cost):
    target = (torch.arange(100) >= 80).long().view(1, 10, 10)  # elsewhere: the place does not matter
    assert create_loss("size_constraint")(predicted(voxels), target).item() == pytest.approx(cost, abs=1e-6)


@pytest.mark.parametrize(("voxels", "cost"), [(30, 0), (19, 0.01**2), (50, 0.1**2)])
def test_bounds_in_ml_need_no_annotation(voxels, cost):
    """20 to 40 voxels of 2 x 3 x 1 mm."""
    loss = create_loss("size_constraint", bounds_ml=((0, 10), (0.12, 0.24)))
    nobody = torch.full((1, 10, 10), -1)
    value = loss(predicted(voxels), nobody, LossContext(spacing_mm=(2.0, 3.0)))
    assert value.item() == pytest.approx(cost, abs=1e-6)


def test_bounds_for_every_channel():
    loss = create_loss("size_constraint", bounds_ml=((0, 1),))
    with pytest.raises(ConfigError, match="bounds_ml needs 2 pairs, one a channel, got 1"):
        loss(predicted(3), torch.zeros(1, 10, 10, dtype=int))
