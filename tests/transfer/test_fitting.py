"""Weights in other dimensions and channels compute what they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from medseg.geometry import reorient
from medseg.io import read
from medseg.transfer._fitting import as_shown, by_axes, fitted, inflated, with_channels


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


def test_a_picture_is_seen_upright(tmp_path: Path) -> None:
    """As shown: what is brighter below and to the right is found by the same kernel in a PNG that medseg reads, in RAS."""
    shown = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
    Image.fromarray(shown).save(tmp_path / "a.png")
    here = torch.from_numpy(reorient(read(tmp_path / "a.png"), "RAS").array[None, ..., 0].copy()).float()
    torch.manual_seed(0)
    weight = torch.randn(1, 1, 3, 3)
    expected = functional.conv2d(torch.from_numpy(shown)[None, None].float(), weight)
    found = functional.conv2d(here, as_shown(weight))
    torch.testing.assert_close(found.flip(2, 3).transpose(2, 3), expected, rtol=1e-4, atol=1e-2)


def test_an_array_of_simpleitk_is_seen_along_the_same_axes() -> None:
    torch.manual_seed(0)
    weight, array = torch.randn(2, 1, 1, 3, 5), torch.randn(1, 1, 4, 6, 8)
    expected = functional.conv3d(array, weight).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(functional.conv3d(array.permute(0, 1, 4, 3, 2), by_axes(weight)), expected)


def test_kernels_of_volumes_and_lists_stay_as_they_are() -> None:
    for weight in (torch.randn(2, 1, 3, 3, 3), torch.randn(4), torch.tensor(1)):
        assert as_shown(weight) is weight
    assert by_axes(torch.ones(4)).shape == (4,)
