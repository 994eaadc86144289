from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from medseg import geometry as geo
from medseg import io
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.labels import Labels
from medseg.preprocess import Config, Intensity, combine, grid, prepare, prepare_labels, read_image
from medseg.settings import parse
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
AXCODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
PLAIN = Config(intensity=(Intensity(kind="none"),))
LABELS = Labels.of({"ball": 1, "box": 7})


def phantom(shape: tuple[int, int, int] = (11, 9, 7), affine: Array | None = None) -> Volume:
    """Every voxel another value, none of them 0: nothing in it is symmetric."""
    array = 1 + np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    return Volume(array, Geometry(shape, np.diag([1.0, 1.5, 3, 1]) if affine is None else affine))


def smooth(geometry: Geometry, bend: float = 0.0) -> Array:
    """Positive everywhere, and linear in world coordinates but for `bend`."""
    world = geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1))
    return np.asarray(200 + world @ np.array([1.0, -0.7, 0.4]) + bend * np.sin(world.sum(-1) / 8), np.float32)


def test_there_are_48_orientations() -> None:
    assert len(set(AXCODES)) == 48


@pytest.mark.parametrize("axcodes", AXCODES)
def test_every_orientation_of_a_scan_gives_the_same_array(axcodes: str) -> None:
    upright = phantom()
    turned = geo.reorient(upright, axcodes)
    assert turned.geometry.axcodes == axcodes
    for orientation in ("RAS", "ASR"):
        config = PLAIN.model_copy(update={"orientation": orientation})
        expected, found = prepare(upright, config), prepare(turned, config)
        np.testing.assert_array_equal(found.array, expected.array)
        np.testing.assert_allclose(found.geometry.affine, expected.geometry.affine, atol=1e-9)
        assert found.geometry.axcodes == orientation
        home = geo.resample_to(found, turned.geometry)
        np.testing.assert_array_equal(home.array, turned.array)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA", "PIL"])
def test_resampling_does_not_depend_on_the_orientation_in_the_file(axcodes: str) -> None:
    affine = np.diag([1.0, 1.5, 3, 1])
    affine[:3, 3] = (-20, 33, 7)
    upright = phantom(affine=affine)
    config = PLAIN.model_copy(update={"spacing_mm": (1.3, 1.3, 2.0)})
    expected, found = prepare(upright, config), prepare(geo.reorient(upright, axcodes), config)
    np.testing.assert_allclose(found.geometry.affine, expected.geometry.affine, atol=1e-9)
    np.testing.assert_allclose(found.array, expected.array, rtol=1e-5, atol=1e-3)


def test_a_mask_made_on_the_prepared_grid_comes_home_exactly() -> None:
    """Reoriented and cropped, not resampled: home is an exact permutation and the cropped margin is background."""
    scan = phantom()
    array = np.array(scan.array)
    array[:, :2], array[..., -3:] = 0, 0
    scan = geo.reorient(scan.replace(array=array), "PIL")
    prepared = prepare(scan, PLAIN)
    assert prepared.geometry.shape == (9, 9, 4)
    mask = Volume((prepared.array > 300).astype(np.uint8), prepared.geometry, "labels")
    home = geo.resample_to(mask, scan.geometry)
    np.testing.assert_array_equal(home.array, scan.array > 300)


@pytest.mark.parametrize("angle", [5.0, 20.0])
def test_a_tilted_series_is_made_upright_and_its_mask_comes_home(angle: float) -> None:
    shear = np.diag([1.0, 1.0, 2.5, 1])
    shear[1, 2] = 2.5 * np.tan(np.radians(angle))
    tilted = Geometry((24, 24, 12), shear)
    scan = Volume(smooth(tilted, bend=5), tilted)
    prepared = prepare(scan, PLAIN)
    assert prepared.geometry.shear_deg < 1e-6
    assert prepared.geometry.axcodes == "RAS"
    inside = prepared.array[0] > scan.array.min() + 1e-3  # beyond the tilted slices there is only their minimum
    np.testing.assert_allclose(prepared.array[0][inside], smooth(prepared.geometry, bend=5)[inside], atol=1.5)
    assert inside.mean() > 0.5
    home = geo.resample_to(prepared, tilted)
    assert home.geometry == tilted
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(home.array[0][inner], scan.array[0][inner], atol=1.0)


def test_rounding_of_an_affine_is_no_tilt() -> None:
    shear = np.diag([1.0, 1, 1, 1])
    shear[0, 1] = np.tan(np.radians(0.3))
    scan = phantom(affine=shear)
    np.testing.assert_array_equal(prepare(scan, PLAIN).array, scan.array)


def test_an_oblique_scan_keeps_its_own_axes() -> None:
    """Reorientation goes to the nearest axes; a rotated scan is not interpolated."""
    c, s = np.cos(0.3), np.sin(0.3)
    scan = phantom(affine=np.array([[c, -s, 0, 4], [s, c, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]]))
    prepared = prepare(scan, PLAIN)
    np.testing.assert_array_equal(prepared.array, scan.array)
    assert prepared.geometry == scan.geometry


def test_channels_on_other_grids_are_brought_to_the_first_by_world_position() -> None:
    first = Geometry((12, 10, 8), np.diag([1.0, 1, 2, 1]))
    shifted = np.diag([-0.8, 0.9, 1.5, 1])
    shifted[:3, 3] = (13, -2, -1)
    other = Geometry((20, 16, 14), shifted)
    both = combine([Volume(smooth(first), first), Volume(smooth(other), other)])
    assert both.geometry == first
    assert both.channels == 2
    assert both.array.dtype == np.float32
    np.testing.assert_allclose(both.array[1], smooth(first), rtol=1e-4)


def test_where_a_channel_does_not_reach_it_has_its_least_value() -> None:
    first = phantom((8, 8, 8), np.eye(4))
    short = geo.crop(phantom((8, 8, 8), np.eye(4)), (0, 0, 0), (8, 8, 6))
    both = combine([first, short])
    np.testing.assert_array_equal(both.array[1, ..., :6], short.array[0])
    assert (both.array[1, ..., 6:] == short.array.min()).all()


def test_channels_of_another_place_are_refused() -> None:
    first = phantom((8, 8, 8), np.eye(4))
    away = np.eye(4)
    away[0, 3] = 5
    with pytest.raises(GeometryError, match="channel 2 covers only 33% of channel 1"):
        combine([first, phantom((8, 8, 8), away)])


def test_images_are_read_channel_by_channel_or_all_at_once(tmp_path: Path) -> None:
    volume = phantom()
    two = volume.replace(array=np.concatenate([volume.array, volume.array[:, ::-1]]))
    for number in range(2):
        io.write(volume.replace(array=two.array[number : number + 1]), tmp_path / f"{number}.nii.gz")
    io.write(two, tmp_path / "both.nii.gz")
    for paths in (["0.nii.gz", "1.nii.gz"], ["both.nii.gz"]):
        found = read_image([tmp_path / name for name in paths])
        np.testing.assert_array_equal(found.array, two.array)


def test_what_was_odd_about_any_channel_is_kept() -> None:
    parts = [phantom().replace(meta={"notes": notes, "axes": 3}) for notes in (("a",), ("b", "a"), ())]
    assert combine(parts).meta == {"notes": ("a", "b"), "axes": 3}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    array = np.ones((10, 10, 10), np.float32)
    array[0, 0, :5] = value
    with pytest.raises(DataError, match=r"NaN or infinite values in 5 of its 1000 voxels"):
        prepare(Volume(array, Geometry((10, 10, 10), np.eye(4))), PLAIN)


@pytest.mark.parametrize("channels", [1, 3])
def test_another_number_of_channels_is_refused(channels: int) -> None:
    scan = Volume(np.ones((channels, 4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)))
    with pytest.raises(DataError, match=rf"expects 2 channels, the scan has {channels}\. Give one file per channel"):
        prepare(scan, Config(intensity=(Intensity(), Intensity())))


def test_margins_are_empty_only_where_every_channel_is() -> None:
    array = np.zeros((2, 10, 8, 6), np.float32)
    array[0, 3:6, 2:4, 1:3] = 1
    array[1, 5:9, 3, 1] = -1
    config = Config(intensity=(Intensity(kind="none"), Intensity(kind="none")))
    scan = Volume(array, Geometry((10, 8, 6), np.eye(4)))
    prepared = prepare(scan, config)
    np.testing.assert_array_equal(prepared.array, array[:, 3:9, 2:4, 1:3])
    np.testing.assert_array_equal(prepared.geometry.affine[:3, 3], (3, 2, 1))
    np.testing.assert_array_equal(geo.resample_to(prepared, scan.geometry).array, array)
    np.testing.assert_array_equal(prepare(scan, config.model_copy(update={"crop_empty": False})).array, array)


def test_an_empty_scan_is_left_whole() -> None:
    scan = Volume(np.zeros((5, 5, 5), np.int16), Geometry((5, 5, 5), np.eye(4)))
    prepared = prepare(scan, Config())
    assert prepared.geometry.shape == (5, 5, 5)
    assert not prepared.array.any()


def test_z_score_is_of_what_is_not_masked_out() -> None:
    array = np.zeros((6, 6, 6), np.int16)
    array[1:5, 1:5, 1:5] = np.random.default_rng(0).integers(50, 150, (4, 4, 4))
    prepared = prepare(Volume(array, Geometry((6, 6, 6), np.eye(4))), Config(crop_empty=False))
    tissue = prepared.array[0][array != 0]
    assert prepared.array.dtype == np.float32
    assert tissue.mean() == pytest.approx(0, abs=1e-5)
    assert tissue.std() == pytest.approx(1, abs=1e-5)
    values = array[array != 0]
    assert prepared.array[0, 0, 0, 0] == pytest.approx(-values.mean() / values.std(), rel=1e-5)


def test_z_score_of_a_constant_image_is_zero() -> None:
    scan = Volume(np.full((4, 4, 4), 7, np.int16), Geometry((4, 4, 4), np.eye(4)))
    np.testing.assert_array_equal(prepare(scan, Config()).array, 0)


@pytest.mark.parametrize("exponent", [-40, 60, 100])
def test_z_score_does_not_depend_on_the_unit(exponent: int) -> None:
    """ADC in m2/s and fields in tesla are tiny numbers; a damaged scale makes huge ones."""
    scan = phantom()
    scaled = scan.replace(array=np.ldexp(scan.array, exponent))
    np.testing.assert_array_equal(prepare(scaled, Config()).array, prepare(scan, Config()).array)


def test_each_channel_has_its_own_intensity() -> None:
    array = np.stack([np.linspace(-2000, 3000, 64).reshape(4, 4, 4), np.linspace(1, 2, 64).reshape(4, 4, 4)])
    clip = Intensity(kind="clip", low=-1000, high=1000, mean=100, std=400)
    prepared = prepare(Volume(array, Geometry((4, 4, 4), np.eye(4))), Config(intensity=(clip, Intensity(kind="none"))))
    np.testing.assert_allclose(prepared.array[0], (np.clip(array[0], -1000, 1000) - 100) / 400, rtol=1e-6)
    np.testing.assert_allclose(prepared.array[1], array[1], rtol=1e-6)


@pytest.mark.parametrize("mm", [0, -1, float("inf"), float("nan")])
def test_a_spacing_that_no_grid_has_is_refused(mm: float) -> None:
    with pytest.raises(ConfigError, match=r"preprocess\.spacing_mm\.0: expected "):
        parse(Config, {"spacing_mm": (mm, 1, 1)}, "preprocess")


def test_the_grid_is_left_alone_within_one_percent() -> None:
    geometry = Geometry((10, 10, 10), np.diag([1.0, 1, 3, 1]))
    assert grid(geometry, Config(spacing_mm=(1.005, None, None))) is geometry
    assert grid(geometry, Config()) is geometry
    assert grid(geometry, Config(spacing_mm=(None, None, 1.5))).shape == (10, 10, 20)


@pytest.mark.parametrize("spacing", [None, 2.0])
def test_a_single_slice(spacing: float | None) -> None:
    image = phantom((20, 16, 1), np.diag([-1.0, -1, 1, 1]))
    prepared = prepare(image, PLAIN.model_copy(update={"orientation": "LPS", "spacing_mm": (spacing, spacing, None)}))
    assert prepared.geometry.shape == ((20, 16, 1) if spacing is None else (10, 8, 1))
    home = geo.resample_to(Volume((prepared.array > 150).astype(np.uint8), prepared.geometry, "labels"), image.geometry)
    assert home.geometry == image.geometry
    assert home.array.any()


def test_slices_of_a_2d_model_lie_across_the_last_axis() -> None:
    sagittal = geo.reorient(phantom(affine=np.diag([4.0, 1, 1, 1])), "ASR")
    prepared = prepare(sagittal, PLAIN.model_copy(update={"orientation": "ASR"}))
    assert prepared.geometry.spacing_mm == (1, 1, 4)
    assert prepared.geometry.shape == (9, 7, 11)


def test_labels_follow_the_image() -> None:
    scan = geo.reorient(phantom(), "LPI")
    values = np.where(scan.array[0] % 3 == 0, 7, 0) + np.where(scan.array[0] % 3 == 1, 1, 0)
    mask = Volume(values.astype(np.uint8), scan.geometry, "labels")
    prepared = prepare(scan, PLAIN)
    classes = prepare_labels(mask, prepared.geometry, LABELS)
    assert classes.dtype == np.int16
    assert classes.shape == (1, *prepared.geometry.shape)
    np.testing.assert_array_equal(classes, np.select([prepared.array % 3 == 0, prepared.array % 3 == 1], [2, 1], 0))


def test_labels_keep_their_volume_when_resampled() -> None:
    geometry = Geometry((30, 30, 12), np.diag([1.0, 1, 2.5, 1]))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    ball = np.linalg.norm(geometry.to_world(index) - (14.5, 14.5, 13.75), axis=-1) < 9
    mask = Volume(ball.astype(np.uint8), geometry, "labels")
    fine = geo.with_spacing(geometry, (0.8, 0.8, 1.0))
    classes = prepare_labels(mask, fine, LABELS)
    assert classes.sum() * fine.voxel_ml == pytest.approx(ball.sum() * geometry.voxel_ml, rel=0.05)


def test_overlapping_labels_have_a_channel_each() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]})
    geometry = Geometry((4, 1, 1), np.eye(4))
    values = Volume(np.array([0, 1, 2, 2], np.uint8).reshape(4, 1, 1), geometry, "labels")
    expected = np.array([[0, 1, 1, 1], [0, 0, 1, 1]]).reshape(2, 4, 1, 1)
    np.testing.assert_array_equal(prepare_labels(values, geometry, labels), expected)
    channels = Volume((expected * 255).astype(np.uint8), geometry, "labels")
    np.testing.assert_array_equal(prepare_labels(channels, geometry, labels), expected)


def test_voxels_to_ignore_are_ignored_in_masks_of_a_channel_a_label_too() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2], "ignore": 9})
    geometry = Geometry((4, 1, 1), np.eye(4))
    channels = np.array([[0, 1, 9, 1], [0, 1, 9, 9]], np.uint8).reshape(2, 4, 1, 1)
    target = prepare_labels(Volume(channels, geometry, "labels"), geometry, labels)
    np.testing.assert_array_equal(target[:, :, 0, 0], [[0, 1, -1, -1], [0, 1, -1, -1]])
    finer = geo.with_spacing(geometry, (0.5, 1, 1))
    moved = prepare_labels(Volume(channels, geometry, "labels"), finer, labels)
    np.testing.assert_array_equal(moved[:, ::2], target)


def test_masks_that_do_not_fit_the_labels_are_refused() -> None:
    geometry = Geometry((2, 2, 2), np.eye(4))
    with pytest.raises(DataError, match=r"label values \[3\] are not declared; declared are \[0, 1, 7\]"):
        prepare_labels(Volume(np.full((2, 2, 2), 3, np.uint8), geometry, "labels"), geometry, LABELS)
    with pytest.raises(DataError, match=r"the mask has 2 channels, but 2 labels are declared in one"):
        prepare_labels(Volume(np.ones((2, 2, 2, 2), np.uint8), geometry, "labels"), geometry, LABELS)


def test_a_wrong_header_is_refused_before_memory_is_asked_for() -> None:
    scan = Volume(np.zeros((40, 40, 40), np.int16), Geometry((40, 40, 40), np.diag([50.0, 50, 50, 1])))
    with pytest.raises(DataError, match=r"8e\+09 voxels. Is its header right\? It has voxels of 50 x 50 x 50 mm"):
        prepare(scan, Config(spacing_mm=(1, 1, 1)))


@pytest.mark.parametrize("lean", [1e3, 1e5])
def test_a_strong_shear_is_refused_before_memory_is_asked_for(lean: float) -> None:
    affine = np.eye(4)
    affine[0, 2] = lean
    scan = Volume(np.zeros((1000, 2, 1000), np.int8), Geometry((1000, 2, 1000), affine))
    with pytest.raises(DataError, match=r"voxels\. Is its header right\? .* axes 90 degrees off right angles"):
        prepare(scan, PLAIN)
