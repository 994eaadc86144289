import pytest
import torch
import torch.nn.functional as F

from medseg.losses import create_loss


@pytest.mark.parametrize("k", [0.07, 0.5, 1.0])
def test_the_worst_voxels(batch, k):
    logits, target = batch
    each = F.cross_entropy(logits, target, reduction="none").flatten().sort(descending=True).values
    expected = each[: -int(-k * len(each) // 1)].mean()
    torch.testing.assert_close(create_loss("top_k", k=k)(logits, target), expected)


def test_a_share_of_what_is_not_ignored(batch):
    logits, target = batch
    target[:, 1:] = -1
    expected = create_loss("top_k", k=0.25)(logits[:, :, :1], target[:, :1])
    torch.testing.assert_close(create_loss("top_k", k=0.25)(logits, target), expected)


def test_all_overlapping_structures_are_ranked_together(overlapping):
    logits, target = overlapping
    each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").flatten()
    loss = create_loss("top_k", activation="sigmoid", k=0.1)
    torch.testing.assert_close(loss(logits, target), each.topk(len(each) // 10).values.mean())


def test_a_whole_number_of_voxels_is_not_rounded_up():
    """In single precision .27 of 100 is a little above 27."""
    logits = torch.zeros(1, 2, 10, 10)
    logits[0, 1] = torch.linspace(-3, 3, 100).view(10, 10)
    each = F.cross_entropy(logits, torch.zeros(1, 10, 10, dtype=int), reduction="none").flatten()
    value = create_loss("top_k", k=0.27)(logits, torch.zeros(1, 10, 10, dtype=int))
    torch.testing.assert_close(value, each.topk(27).values.mean())


def test_one_voxel_at_least(batch):
    logits, target = batch
    worst = F.cross_entropy(logits, target, reduction="none").max()
    torch.testing.assert_close(create_loss("top_k", k=1e-6)(logits, target), worst)
