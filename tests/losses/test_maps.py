"""Maps of places, beside slow and plain ways to the same."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg import distance
from medseg.losses import LossContext, _maps
from medseg.losses._level import Level, make_level
from medseg.losses._options import Options

SPACING = (1.0, 0.7, 2.5)


def level_of(target: torch.Tensor, classes: int, spacing: tuple[float, ...] = SPACING) -> Level:
    logits = torch.zeros(len(target), classes, *target.shape[1:])
    return make_level(logits, target[:, None], LossContext(spacing_mm=spacing), Options())


def blobs(shape: tuple[int, ...], classes: int) -> torch.Tensor:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), [0, *[1.2] * (len(shape) - 1)])
    edges = np.quantile(noise, np.linspace(0, 1, classes + 1)[1:-1] ** 0.3)
    return torch.from_numpy(np.digitize(noise, edges))


@pytest.mark.parametrize("shape", [(2, 20, 17), (1, 10, 12, 8)])
def test_distance_to_another_class(shape):
    target = blobs(shape, 3)
    found = _maps.to_other_side(level_of(target, 3))[:, 0]
    for one, labels in zip(found.numpy(), target.numpy(), strict=True):
        spacing = SPACING[: labels.ndim]
        expected = sum(ndimage.distance_transform_edt(labels == k, sampling=spacing) for k in range(3))
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_beside_a_boundary():
    target = torch.zeros(1, 5, 6, dtype=int)
    target[:, 1:4, 1:5] = 1
    target[:, 2, 2:4] = 2
    near = _maps.beside_boundary(level_of(target, 3))[0, 0]
    expected = torch.ones(5, 6)
    expected[[0, 0, 4, 4], [0, 5, 0, 5]] = 0  # corners touch corners only
    assert torch.equal(near, expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_no_boundary_lies_beside_what_is_ignored(activation):
    target = torch.tensor([0, 0, -1, 0, 0, 1, 1, -1, 1]).expand(1, 2, 9)
    logits = torch.zeros(1, 2 if activation == "softmax" else 1, 2, 9)
    level = make_level(logits, target[:, None], LossContext(), Options(activation=activation))
    assert _maps.beside_boundary(level)[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 24, 19), (1, 12, 14, 9)])
def test_between_objects_by_one_transform_an_object(shape):
    target, sigma = blobs(shape, 3), 1.5
    found = _maps.between_objects(level_of(target, 3), sigma)[:, 0]
    for one, labels in zip(found.numpy(), target.numpy(), strict=True):
        full = np.ones([3] * labels.ndim)
        parts = [mask for k in (1, 2) for mask in components(labels == k, full)]
        assert len(parts) > 2
        away = np.sort([ndimage.distance_transform_edt(~m, sampling=SPACING[: labels.ndim]) for m in parts], 0)
        expected = np.exp(-((away[0] + away[1]) ** 2) / (2 * sigma**2)) * (labels == 0)
        np.testing.assert_allclose(one, expected, atol=1e-6)


def components(mask, structure):
    labels, count = ndimage.label(mask, structure)
    return [labels == n for n in range(1, count + 1)]


@pytest.mark.parametrize("objects", [0, 1])
def test_nothing_lies_between_fewer_than_two_objects(objects):
    target = torch.zeros(1, 9, 9, dtype=int)
    target[0, 2, 3] = objects
    assert not _maps.between_objects(level_of(target, 2), 5.0).any()


def test_what_an_accelerator_computes(monkeypatch):
    """Distances by tensor operations alone are the same maps."""
    level = level_of(blobs((1, 12, 14, 9), 3), 3)
    expected = [_maps.to_other_side(level), _maps.between_objects(level, 1.5)]
    monkeypatch.setattr(_maps, "to_boundary_batch", distance._to_boundary_tensor)
    monkeypatch.setattr(_maps, "to_mask_batch", lambda mask, mm: distance._squared_to_mask(mask, mm).sqrt())
    for found, wanted in zip([_maps.to_other_side(level), _maps.between_objects(level, 1.5)], expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
