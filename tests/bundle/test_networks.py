from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medseg import models
from medseg.bundle.networks import fold_batch_norm


def network(dims: int, norm: str) -> nn.Module:
    torch.manual_seed(0)
    config = {"name": "unet", "preset": "tiny", "norm": norm}
    return models.create_model(config, spatial_dims=dims, in_channels=1, out_channels=2).eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_batch_normalisation_is_merged(dims: int) -> None:
    net, x = network(dims, "batch"), torch.randn(2, 1, *(16, 12, 8)[:dims])
    with torch.no_grad():
        net.train()(x)  # figures of its own
        for part in net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.weight.uniform_(0.5, 2)
                part.bias.uniform_(-1, 1)
        expected = net.eval()(x)
        folded = fold_batch_norm(copy.deepcopy(net))
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)


def test_other_normalisations_are_left_alone() -> None:
    net = network(3, "instance")
    before = list(net.state_dict())
    assert list(fold_batch_norm(net).state_dict()) == before
