import pytest
import torch

from medseg.errors import ConfigError
from medseg.losses import create_loss


def certain(answer: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(answer, classes).movedim(-1, 1) * 100.0


def rings() -> torch.Tensor:
    answer = torch.zeros(1, 9, 9, dtype=int)
    answer[0, 2:7, 2:7] = 1
    answer[0, 4, 4] = 2
    return answer


def test_exclusive_labels_by_hand():
    """A voxel of the inner label at the rim touches background once: one of 2 x 2 x 72 neighbours."""
    loss, answer = create_loss("containment"), rings()
    assert loss(certain(answer), answer).item() == pytest.approx(0, abs=1e-7)
    answer[0, 2, 4] = 2
    assert loss(certain(answer), answer).item() == pytest.approx(1 / 288)


def test_overlapping_labels_by_hand():
    outer, inner = torch.zeros(2, 4, 5)
    outer[:, :3], inner[1, 2:5] = 1, 1
    logits = (torch.stack([outer, inner])[None] - 0.5) * 100
    loss = create_loss("containment", activation="sigmoid")
    target = torch.zeros(1, 2, 4, 5, dtype=int)
    assert loss(logits, target).item() == pytest.approx(2 / 20)
    apart = create_loss("containment", activation="sigmoid", inside=(), apart=((0, 1),))
    assert apart(logits, target).item() == pytest.approx(1 / 20)


def test_exclusive_labels_that_must_not_touch():
    loss = create_loss("containment", inside=(), apart=((1, 2),))
    apart = torch.tensor([[[1, 0, 2, 0]]])
    beside = torch.tensor([[[0, 1, 2, 0]]])
    assert loss(certain(apart), apart).item() == pytest.approx(0, abs=1e-7)
    assert loss(certain(beside), beside).item() == pytest.approx(1 / 6)


def test_one_structure_and_one_voxel_break_no_rule():
    for shape in ((1, 2, 4, 4), (1, 3, 1, 1)):
        logits = torch.randn(shape, requires_grad=True)
        loss = create_loss("containment")(logits, torch.zeros(1, *shape[2:], dtype=int))
        loss.backward()
        assert loss.item() == 0
        assert not logits.grad.any()


def test_channels_that_do_not_exist():
    with pytest.raises(ConfigError, match="speaks of channel 3, but there are 0 to 2"):
        create_loss("containment", inside=((3, 1),))(certain(rings()), rings())
