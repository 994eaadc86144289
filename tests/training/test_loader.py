from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg import augment, sample
from medseg.training.loader import Batches
from medseg.training.prepared import Prepared
from medseg.volume import Geometry

SHAPE = (12, 10, 8)


def prepared(seed: int, shape: tuple[int, int, int] = SHAPE, channels: int = 1, overlapping: bool = False) -> Prepared:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    target = rng.integers(0, 2 if overlapping else 3, ((2 if overlapping else 1), *shape)).astype(np.int16)
    return Prepared(f"{seed}", Geometry(shape, np.eye(4)), image, target, sample.points_by_class(target))


def batches(cases: list[Prepared], patch: Any, *, augmented: bool = False, size: int = 3, **more: Any) -> Batches:
    changes = augment.Config(mirror_axes=(0, 1)) if augmented else None
    return Batches(cases, sample.Config(patch=patch), changes, size=size, device=torch.device("cpu"), **more)


@pytest.mark.parametrize("augmented", [False, True])
def test_a_batch_is_a_pure_function_of_its_step(augmented: bool) -> None:
    cases = [prepared(n) for n in range(3)]
    one, other = (batches(cases, (6, 6, 6), augmented=augmented) for _ in range(2))
    kept = {step: other(step) for step in (5, 0, 2)}
    for step in (0, 2, 5):
        for a, b in zip(one(step), kept[step], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(one(0)[0], one(1)[0])
    assert not torch.equal(one(0)[0], batches(cases, (6, 6, 6), augmented=augmented, seed=1)(0)[0])


@pytest.mark.parametrize("augmented", [False, True])
def test_shapes_and_types(augmented: bool) -> None:
    image, target = batches([prepared(0, channels=2)], (6, 4, 8), augmented=augmented)(0)
    assert image.shape == (3, 2, 6, 4, 8)
    assert image.dtype == torch.float32
    assert target.shape == (3, 6, 4, 8)
    assert target.dtype == torch.int64
    image, target = batches([prepared(0, channels=2)], (6, 4, 1), augmented=augmented)(0)
    assert image.shape == (3, 2, 6, 4)
    assert target.shape == (3, 6, 4)
    image, target = batches([prepared(0, overlapping=True)], (6, 4, 8), augmented=augmented)(0)
    assert target.shape == (3, 2, 6, 4, 8)
    assert target.dtype == torch.int64
    assert set(target.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("patch", [(5, 4, 3), (6, 4, 1)])
def test_patches_without_augmentation_are_pieces_of_the_cases(patch: tuple[int, int, int]) -> None:
    cases = [prepared(n) for n in range(2)]
    found = batches(cases, patch, size=6)
    image, target = found(4)
    for n, (cut, classes) in enumerate(zip(image, target, strict=True)):
        case, start = found.sampler.draw(4, 4 * 6 + n)
        box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        np.testing.assert_array_equal(cut.numpy().reshape(patch), cases[case].image[0][box])
        np.testing.assert_array_equal(classes.numpy().reshape(patch), cases[case].target[0][box])


def test_a_case_shorter_than_the_patch_is_padded_with_background() -> None:
    image, target = batches([prepared(0, (4, 4, 4))], (8, 8, 8))(0)
    assert ((image != 0).sum((1, 2, 3, 4)) == 64).all()
    assert (target[image[:, 0] == 0] == 0).all()
    assert target.any()


@pytest.mark.parametrize(("ranks", "parts"), [(2, 1), (1, 2), (1, 4), (2, 2)])
def test_a_step_has_the_same_samples_however_it_is_shared(ranks: int, parts: int) -> None:
    cases = [prepared(n) for n in range(3)]
    together = batches(cases, (6, 6, 6), size=4, augmented=True)(3)
    share: Any = {"size": 4 // ranks // parts, "parts": parts, "ranks": ranks, "augmented": True}
    drawn = [
        batches(cases, (6, 6, 6), rank=rank, **share)(3 * parts + part)
        for rank in range(ranks)
        for part in range(parts)
    ]
    for whole, shares in zip(together, zip(*drawn, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(shares), rtol=1e-5, atol=1e-5)


def test_cases_that_do_not_fit_in_memory_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(0)
    for name in ("image", "target"):
        np.save(tmp_path / f"{name}.npy", getattr(made, name))
    maps = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "target")}
    stored = [dataclasses.replace(made, **maps)]
    resident = batches(stored, (6, 6, 6))
    monkeypatch.setattr("medseg.memory.free_bytes", lambda: 0.0)
    mapped = batches(stored, (6, 6, 6))
    assert isinstance(resident.arrays[0][0], torch.Tensor)
    assert isinstance(mapped.arrays[0][0], np.memmap)
    for a, b in zip(resident(1), mapped(1), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
