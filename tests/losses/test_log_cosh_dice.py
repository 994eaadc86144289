import math

import pytest
import torch

from medseg.losses import create_loss


def test_worked_example(grid):
    assert create_loss("log_cosh_dice")(*grid).item() == pytest.approx(math.log(math.cosh(4 / 18)), abs=1e-5)


def test_of_the_mean_over_structures(batch):
    torch.testing.assert_close(create_loss("log_cosh_dice")(*batch), create_loss("dice")(*batch).cosh().log())
