"""Weights in other dimensions and channels compute what they did."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medseg.transfer._fitting import fitted, inflated, with_channels


def test_an_inflated_mean_answers_alike_slices_as_in_2d() -> None:
    torch.manual_seed(0)
    weight, image = torch.randn(5, 2, 3, 3), torch.randn(1, 2, 8, 9)
    deep = functional.conv3d(image[..., None].expand(-1, -1, -1, -1, 7), inflated(weight, 3, "mean"))
    assert torch.allclose(deep, functional.conv2d(image, weight)[..., None].expand_as(deep), atol=1e-5)


def test_an_inflated_centre_answers_each_slice_as_in_2d() -> None:
    torch.manual_seed(0)
    weight, volume = torch.randn(5, 2, 3, 3), torch.randn(1, 2, 8, 9, 4)
    deep = functional.conv3d(volume, inflated(weight, 5, "centre"), padding=(0, 0, 2))
    for k in range(4):
        assert torch.allclose(deep[..., k], functional.conv2d(volume[..., k], weight), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_equal_channels_give_what_they_gave(channels: int) -> None:
    torch.manual_seed(0)
    weight, image = torch.randn(4, 3, 7, 7), torch.randn(1, 1, 9, 9)
    found = functional.conv2d(image.expand(-1, channels, -1, -1), with_channels(weight, channels))
    assert torch.allclose(found, functional.conv2d(image.expand(-1, 3, -1, -1), weight), atol=1e-4)


def test_only_the_first_convolution_changes_its_channels() -> None:
    shapes = {"a": torch.Size((4,)), "b": torch.Size((4, 1, 3, 3)), "c": torch.Size((4, 8, 3, 3))}
    found = fitted({"a": torch.ones(4), "b": torch.ones(4, 3, 3, 3), "c": torch.ones(4, 2, 3, 3)}, shapes, "mean")
    assert found.keys() == {"a", "b"}
    assert torch.equal(found["b"], torch.full((4, 1, 3, 3), 3.0))


def test_what_has_another_shape_is_left_out() -> None:
    shapes = {"a": torch.Size((4, 3, 3, 3, 3)), "b": torch.Size((2,))}
    assert not fitted({"a": torch.ones(4, 3, 5, 5), "b": torch.ones(3), "c": torch.ones(1)}, shapes, "mean")
