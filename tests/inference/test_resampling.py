from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from medseg.inference import resampling
from medseg.inference.resampling import Box, resample_slabs
from medseg.inference.sliding import Slab, Slabs
from medseg.inference.stitching import Range
from medseg.volume import Geometry

Array = npt.NDArray[Any]
SOURCE = Geometry((14, 12, 10), np.diag([1.5, 1.5, 2.0, 1]))
OUTSIDE = (0.0, -1e4, -1e4)


def affine(columns: Any, origin: Any = (0, 0, 0)) -> Array:
    made = np.eye(4)
    made[:3, :3] = np.array(columns, float).T
    made[:3, 3] = origin
    return made


def rotation(degrees: float) -> Array:
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return turn


TARGETS = {
    "same": SOURCE,
    "finer": Geometry((28, 24, 20), np.diag([0.75, 0.75, 1.0, 1])),
    "coarser": Geometry((5, 6, 4), np.diag([4.0, 3, 5, 1])),
    "flipped": Geometry((14, 12, 10), affine([(-1.5, 0, 0), (0, 1.5, 0), (0, 0, -2)], (19.5, 0, 18))),
    "permuted": Geometry((11, 20, 17), affine([(0, 0, 1.9), (1.0, 0, 0), (0, -1, 0)], (0.3, 16, -0.2))),
    "oblique": Geometry((15, 15, 14), rotation(25) @ affine([(1.2, 0, 0), (0, 1.2, 0), (0, 0, 1.6)], (2, -3, -1))),
    "sheared": Geometry((14, 12, 10), affine([(1.5, 0, 0), (0, 1.5, 0), (0, 0.7, 1.9)])),
    "larger": Geometry((20, 20, 20), affine([(1.5, 0, 0), (0, 1.5, 0), (0, 0, 2)], (-6, -4.5, -8))),
    "elsewhere": Geometry((6, 5, 4), affine([(1, 0, 0), (0, 1, 0), (0, 0, 1)], (100, 0, 0))),
}


def logits() -> Tensor:
    return torch.randn((3, *SOURCE.shape), generator=torch.Generator().manual_seed(0))


def cut(whole: Tensor, axis: int, step: int) -> Slabs:
    """Slabs of a region, so many slices each; only the last one may have less."""

    def stream(region: Sequence[Range]) -> Iterator[Slab]:
        start = region[axis][0]
        for part in whole[(slice(None), *(slice(*ends) for ends in region))].split(step, axis + 1):
            yield Slab(start, axis, part)
            start += part.shape[axis + 1]

    return stream


def collect(parts: Iterator[tuple[Box, Array]], shape: tuple[int, ...]) -> tuple[Array, int]:
    """The whole, and how many parts it came in; every voxel exactly once."""
    found, times, count = None, np.zeros(shape, int), 0
    for box, part in parts:
        found = np.empty((len(part), *shape), part.dtype) if found is None else found
        found[:, *box] = part
        times[box] += 1
        count += 1
    assert found is not None
    assert (times == 1).all()
    return found, count


def by_scipy(whole: Tensor, target: Geometry) -> Array:
    """Linear interpolation, the nearest voxel within half a step of the border, `OUTSIDE` beyond."""
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1)
    at = np.moveaxis(SOURCE.to_index(target.to_world(index)), -1, 0)
    inside = np.all([(a > -0.5001) & (a < n - 0.4999) for a, n in zip(at, SOURCE.shape, strict=True)], axis=0)
    pulled = [map_coordinates(channel.double().numpy(), at, order=1, mode="nearest") for channel in whole]
    return np.stack([np.where(inside, p, value) for p, value in zip(pulled, OUTSIDE, strict=True)])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("strips", [1, 4])
def test_a_stream_comes_home_as_the_whole_would(
    name: str, axis: int, strips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, whole = TARGETS[name], logits()
    monkeypatch.setattr(resampling, "_CHUNK", 2000)
    expected = by_scipy(whole, target)
    across = ((axis + 1) % 3, strips)
    found, _ = collect(resample_slabs(cut(whole, axis, 3), SOURCE, target, lambda x: x, OUTSIDE, across), target.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    classes, _ = collect(
        resample_slabs(cut(whole, axis, 5), SOURCE, target, lambda x: x.argmax(0, keepdim=True), OUTSIDE, across),
        target.shape,
    )
    best = np.sort(expected, 0)
    clear = best[-1] - best[-2] > 1e-2
    np.testing.assert_array_equal(classes[0][clear], expected.argmax(0)[clear])
    assert clear.mean() > 0.9


def test_what_was_cropped_away_is_background() -> None:
    target = TARGETS["larger"]
    found, _ = collect(
        resample_slabs(cut(logits(), 2, 10), SOURCE, target, lambda x: x.argmax(0)[None], OUTSIDE), target.shape
    )
    assert not found[0, :4].any()
    assert not found[0, :, :, 15:].any()
    assert found.any()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_outside_follows_from_the_grids_alone(name: str) -> None:
    """Values that are no numbers stay what they are: they do not become background."""
    target, sick = TARGETS[name], torch.full((3, *SOURCE.shape), float("nan"))
    found, _ = collect(resample_slabs(cut(sick, 2, 6), SOURCE, target, lambda x: x, OUTSIDE), target.shape)
    index = SOURCE.to_index(target.to_world(np.stack(np.indices(target.shape), -1)))
    outside = ((index < -0.501) | (index > np.array(SOURCE.shape) - 0.499)).any(-1)
    inside = ((index > -0.499) & (index < np.array(SOURCE.shape) - 0.501)).all(-1)
    assert np.isnan(found[:, inside]).all()
    for channel, value in zip(found, OUTSIDE, strict=True):
        np.testing.assert_allclose(channel[outside], value, rtol=1e-5)


def test_slices_leave_as_soon_as_they_can_and_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long scan on its own axes no more is held than a slab and the slice before it."""
    held: list[int] = []
    join = resampling._joined

    def spy(a: Slab, b: Slab) -> Slab:
        joined = join(a, b)
        held.append(joined.logits.shape[1])
        return joined

    monkeypatch.setattr(resampling, "_joined", spy)
    source = Geometry((60, 4, 4), np.eye(4))
    target = Geometry((120, 4, 4), affine([(-0.5, 0, 0), (0, 1, 0), (0, 0, 1)], (59.25, 0, 0)))
    asked = 0

    def stream(region: Sequence[Range]) -> Iterator[Slab]:
        nonlocal asked
        assert [*region] == [(0, 60), (0, 4), (0, 4)]
        for start in range(0, 60, 5):
            asked += 1
            yield Slab(start, 0, torch.full((2, 5, 4, 4), float(start)))

    parts = resample_slabs(stream, source, target, lambda x: x[:1], (0, 0))
    box, _ = next(parts)
    assert asked == 1
    assert box[1:] == (slice(0, 4), slice(0, 4))
    assert box[0].stop == 120, "the target runs against the source: its last slices come first"
    collect(resample_slabs(stream, source, target, lambda x: x[:1], (0, 0)), target.shape)
    assert max(held) <= 5 + 2


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["finer"]
    monkeypatch.setattr(resampling, "_CHUNK", 3 * 24 * 20 * 2)
    sizes: list[int] = []

    def reduce(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x[:1]

    _, count = collect(resample_slabs(cut(logits(), 0, 14), SOURCE, target, reduce, OUTSIDE), target.shape)
    assert max(sizes) <= 3 * 24 * 20 * 2
    assert count == 14


def test_more_strips_than_slices_are_as_many_as_slices() -> None:
    target = Geometry((14, 12, 2), np.diag([1.5, 1.5, 10.0, 1]))
    found, _ = collect(resample_slabs(cut(logits(), 0, 3), SOURCE, target, lambda x: x, OUTSIDE, (2, 5)), target.shape)
    np.testing.assert_allclose(found, by_scipy(logits(), target), atol=1e-3)
