import math

import pytest
import torch

from medseg.losses import create_loss


@pytest.mark.parametrize("classes", [2, 5])
def test_undecided_and_certain(classes):
    logits, target = torch.zeros(1, classes, 3, 3), torch.zeros(1, 3, 3, dtype=int)
    assert create_loss("entropy")(logits, target).item() == pytest.approx(math.log(classes))
    logits[:, 1] = 100
    assert create_loss("entropy")(logits, target).item() == pytest.approx(0, abs=1e-6)


def test_each_sigmoid_channel_is_a_yes_or_no(overlapping):
    logits, target = overlapping
    p = logits.sigmoid()
    expected = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    torch.testing.assert_close(create_loss("entropy", activation="sigmoid")(logits, target), expected)
