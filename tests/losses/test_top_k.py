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
