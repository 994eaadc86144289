"""Small batches with known answers."""

import pytest
import torch
from torch import Tensor


def random_batch(shape: tuple[int, ...] = (2, 3, 5, 7, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that want a gradient, and classes that all occur."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits.requires_grad_(), target


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return random_batch()


@pytest.fixture(params=[(2, 3, 9, 6), (1, 3, 5, 7, 4)], ids=["2d", "3d, batch of one"])
def any_batch(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return random_batch(request.param)


@pytest.fixture
def overlapping() -> tuple[Tensor, Tensor]:
    """Logits and memberships in which voxels belong to none, one or several of three structures."""
    logits, _ = random_batch()
    return logits, (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > 0.6).long()


@pytest.fixture
def grid() -> tuple[Tensor, Tensor]:
    """A certain answer on 5 x 5 pixels: 7 true positives, 1 false positive, 3 false negatives, 14 true negatives."""
    truth = torch.tensor([1] * 10 + [0] * 15).reshape(1, 5, 5)
    answer = torch.tensor([1] * 7 + [0] * 3 + [1] + [0] * 14).reshape(1, 5, 5)
    return torch.stack([1 - answer, answer], 1) * 100.0 - 50, truth
