"""A dense CRF behind the network: what comes home is what `refine` makes of the whole map, in one tile or in many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from medseg import cohort, files, io, preprocess
from medseg import geometry as geo
from medseg.bundle import Bundle
from medseg.crf.dense_crf import Config, refine
from medseg.data.scans import find
from medseg.errors import ConfigError
from medseg.inference import refining
from medseg.inference.uncertainty import Config as Sampling
from medseg.inference.windows import Config as Windows
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
SIZES = [(14, 12, 10), (24, 20, 1)]
SHORT = Config(theta_alpha=2, theta_beta=0.5, theta_gamma=1, iterations=3)


class Doubtful(nn.Module):
    """Bright and dark, with doubt that the CRF can take away."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], 1)[:, :2] * 0.7


def predictor(crf: Config | None, dims: int = 3, **changes: Any) -> Predictor:
    known: dict[str, Any] = {
        "name": "hand-made",
        "model": {"name": "unet"},
        "spatial_dims": dims,
        "channels": ("MR",),
        "labels": Labels.of({"bright": 3}),
        "preprocess": Preprocess(crop_empty=False),
        "inference": Windows(window=(8, 8, 8 if dims == 3 else 1)),
    }
    extra = {name: changes.pop(name) for name in ("sampling",) if name in changes}
    network = changes.pop("network", None) or Doubtful()
    return Predictor.of(Bundle(**known | changes), [network], device="cpu", crf=crf, **extra)


def scan(size: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 2.0)) -> Volume:
    """Two halves, and noise."""
    bright = (np.arange(size[0]) >= size[0] // 2)[:, None, None] * np.ones(size)
    array = 500 + 100 * bright + 60 * np.random.default_rng(0).normal(size=size)
    i, j, k = size
    return Volume(array.astype(np.float32), Geometry((i, j, k), np.diag([*spacing, 1.0])))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_comes_home_is_what_refine_makes_of_all(size: tuple[int, int, int]) -> None:
    image = scan(size)
    plain = predictor(None)(image, probabilities=True)
    assert plain.probabilities is not None
    normalised = preprocess.prepare(image, Preprocess(crop_empty=False))
    expected = refine(plain.probabilities, normalised, SHORT).array
    found = predictor(SHORT)(image, probabilities=True)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.array, expected, atol=1e-5)
    np.testing.assert_array_equal(found.mask.array[0], expected.argmax(0) * 3)
    assert (found.mask.array != plain.mask.array).mean() > 0.01


def test_ranges_are_in_mm_and_in_normalised_values() -> None:
    """A scan in other units gives the same, and one of other spacing does not."""
    image = scan((14, 12, 10))
    found, same, other = (
        predictor(SHORT)(one, probabilities=True).probabilities
        for one in (image, image.replace(array=image.array * 7), scan((14, 12, 10), (3, 3, 3)))
    )
    assert found is not None
    assert same is not None
    assert other is not None
    np.testing.assert_allclose(found.array, same.array, atol=1e-4)
    assert np.abs(found.array - other.array).max() > 0.01


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refining, "refine", None)
    predictor(None)(scan((14, 12, 10)))


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_turned_and_resampled_scans(axcodes: str) -> None:
    """Refined on the grid of the network, and brought home from there."""
    prepared = Preprocess(crop_empty=False, spacing_mm=(1.5, 1.5, 1.5))
    image = scan((20, 16, 12))
    straight = predictor(SHORT, preprocess=prepared)(image)
    turned = predictor(SHORT, preprocess=prepared)(geo.reorient(image, axcodes))
    assert turned.mask.geometry.axcodes == axcodes
    agree = geo.reorient(turned.mask, "RAS").array == straight.mask.array
    assert agree.mean() > 0.995
    bright = np.arange(20)[:, None, None] >= 10
    assert ((straight.mask.array[0] > 0) == bright).mean() > 0.97


def test_tiles_make_nearly_what_the_whole_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the exact sums: a lattice errs by more than that, and differently in each tile."""
    monkeypatch.setattr("medseg.crf.mean_field.EXACT", 10**4)
    image, calls = scan((40, 8, 8), (1.0, 1.0, 1.0)), []
    whole = predictor(SHORT)(image, probabilities=True)

    def watched(probabilities: Volume, values: Volume, config: Config) -> Volume:
        calls.append(probabilities.geometry)
        assert probabilities.geometry == values.geometry
        return refine(probabilities, values, config)

    monkeypatch.setattr(refining, "refine", watched)
    monkeypatch.setattr(refining, "TILE_BYTES", 700 * 24 * 8 * 8)
    tiled = predictor(SHORT)(image, probabilities=True)
    assert len(calls) > 1
    assert max(np.prod(grid.shape) for grid in calls) <= 24 * 8 * 8
    assert whole.probabilities is not None
    assert tiled.probabilities is not None
    assert np.abs(tiled.probabilities.array - whole.probabilities.array).max() < 0.02
    assert (tiled.mask.array == whole.mask.array).mean() >= 0.999


@pytest.mark.parametrize("size", [(1, 1, 1), (40, 40, 1), (3, 200, 200), (100, 100, 100)])
@pytest.mark.parametrize("most", [1, 10_000, 10**9])
def test_tiles_fit_where_they_can_and_are_no_smaller_than_their_reach(
    size: tuple[int, int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "TILE_BYTES", most * 700)
    parts, reach = refining._tiling(Geometry(size, np.diag([1.0, 2.0, 4.0, 1.0])), 2, Config(theta_alpha=4))
    assert reach == [12, 6, 3]
    sides = [-(-n // count) for n, count in zip(size, parts, strict=True)]
    assert all(count == 1 or side >= r // 2 for side, r, count in zip(sides, reach, parts, strict=True))
    if np.prod(size) <= most:
        assert parts == [1, 1, 1]


def test_sure_background_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x * 0 + 9, x * 0], 1)

    monkeypatch.setattr(refining, "refine", None)
    assert not predictor(SHORT, network=Sure())(scan((14, 12, 10))).mask.array.any()


def test_slices_of_a_2d_model_talk_across_the_volume() -> None:
    image = scan((14, 12, 10))
    flat, volume = (predictor(SHORT, dims)(image, probabilities=True).probabilities for dims in (2, 3))
    assert flat is not None
    assert volume is not None
    np.testing.assert_allclose(flat.array, volume.array, atol=1e-5)


def test_variances_of_samples_stay_what_they_are() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 6, 1), nn.Dropout(0.5), nn.Conv3d(6, 2, 1))
    image = scan((14, 12, 10))
    plain, found = (
        predictor(crf, network=net, sampling=Sampling(samples=3))(image, probabilities=True) for crf in (None, SHORT)
    )
    assert plain.variances is not None
    assert found.variances is not None
    np.testing.assert_array_equal(plain.variances.array, found.variances.array)
    assert plain.probabilities is not None
    assert found.probabilities is not None
    assert np.abs(plain.probabilities.array - found.probabilities.array).max() > 0.01


def test_labels_that_overlap_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels exclude each other; .* Leave crf out"):
        predictor(SHORT, labels=Labels.of({"whole": [1, 2], "core": 2}))


def test_the_map_grows_on_disk_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        files,
        "scratch",
        lambda folder, shape, kind, make=files.scratch: made.append(shape) or make(folder, shape, kind),
    )
    io.write(scan((14, 12, 10)), tmp_path / "a.nii.gz")
    for name in ("memory", "disk"):
        cohort.predict(predictor(SHORT), find([tmp_path / "a.nii.gz"]), tmp_path / name, stream=name == "disk")
    masks = [io.read(tmp_path / name / "a.nii.gz").array for name in ("memory", "disk")]
    np.testing.assert_array_equal(*masks)
    assert (2, 14, 12, 10) in made
