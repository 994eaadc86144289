import base64
import io
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medseg.errors import GeometryError
from medseg.volume import Geometry, Volume

# An axis that points to the left, a permutation and unequal sizes: any flip or swap moves a landmark.
ODD = np.array([[0.0, -2, 0, 5], [1, 0, 0, -3], [0, 0, 3, 7], [0, 0, 0, 1]])


def sheared(degrees: float) -> np.ndarray:
    """A gantry tilted about the left-right axis: slices 3 mm apart slide forwards."""
    affine = np.diag((0.5, 0.5, 3.0, 1.0))
    affine[1, 2] = 3 * np.tan(np.radians(degrees))
    return affine


def test_a_landmark_lies_where_the_affine_says() -> None:
    grid = Geometry((4, 5, 6), ODD)
    assert grid.to_world((1, 2, 3)).tolist() == [5 - 2 * 2, -3 + 1, 7 + 3 * 3]
    assert grid.to_world([[0, 0, 0], [1, 0, 0]]).tolist() == [[5, -3, 7], [5, -2, 7]]
    assert grid.spacing_mm == (1, 2, 3)
    assert grid.axcodes == "ALS"
    assert grid.voxel_ml == pytest.approx(0.006)


def test_spacing_by_direction_and_not_by_the_order_of_axes() -> None:
    grid = Geometry((4, 5, 6), ODD)
    assert grid.spacing_along("RAS") == grid.spacing_along("LPI") == (2, 1, 3)
    assert grid.spacing_along("SAR") == (3, 1, 2)


def test_shear_changes_neither_volume_nor_the_way_back() -> None:
    grid = Geometry((10, 10, 5), sheared(20))
    assert grid.shear_deg == pytest.approx(20)
    assert grid.voxel_ml == pytest.approx(0.5 * 0.5 * 3 / 1000)
    assert grid.spacing_mm[2] == pytest.approx(3 / np.cos(np.radians(20)))
    assert np.allclose(grid.to_index(grid.to_world((1, 2, 3))), (1, 2, 3))
    assert Geometry((1, 1, 1), ODD).shear_deg == 0


def test_the_diagonal_reaches_from_edge_to_edge() -> None:
    assert Geometry((3, 4, 12), np.eye(4)).diagonal_mm == pytest.approx(13)
    corners = np.array([(-0.5, -0.5, -0.5), (3.5, 4.5, 5.5)])
    grid = Geometry((4, 5, 6), sheared(20))
    assert grid.diagonal_mm == pytest.approx(np.linalg.norm(np.diff(grid.to_world(corners), axis=0)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    st.lists(st.floats(-50, 50), min_size=3, max_size=3),
)
def test_index_and_world_are_inverse(numbers: list[float], point: list[float]) -> None:
    affine = np.vstack((np.reshape(numbers, (3, 4)), (0, 0, 0, 1))) + np.diag((9, 9, 9, 0))
    grid = Geometry((2, 3, 4), affine)
    assert np.allclose(grid.to_world(grid.to_index(point)), point, atol=1e-8)


def test_corners_are_voxel_centres_and_tell_how_far_grids_are_apart() -> None:
    affine = np.diag([1.0, 2, 3, 1])
    affine[:3, 3] = 10, 20, 30
    corners = Geometry((3, 4, 5), affine).corners_world
    assert {tuple(corner) for corner in corners} == {(x, y, z) for x in (10, 12) for y in (20, 26) for z in (30, 42)}
    turned = affine.copy()
    turned[2, 0] = 0.5
    assert Geometry((3, 4, 5), affine).apart_mm(Geometry((3, 4, 5), turned)) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(0, 1, 1), (2, 2), (1, 2, 3, 4), (-1, 2, 2)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three positive sizes"):
        Geometry(shape, np.eye(4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "affine", [np.eye(3), np.full((4, 4), np.nan), np.ones((4, 4)), np.diag((1, 1, 0, 1)), np.diag((1, np.inf, 1, 1))]
)
def test_impossible_affines_are_refused_in_one_line(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry((2, 2, 2), affine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [4e-6, 1, 1e6])
def test_voxels_may_be_of_any_size(scale: float) -> None:
    """Electron microscopy has voxels of nanometres."""
    affine = np.diag((scale, -scale, 10 * scale, 1))
    assert np.allclose(Geometry((2, 3, 4), affine).to_index((scale, -scale, 10 * scale)), 1)


@pytest.mark.parametrize("scale", [4e-6, 1, 1e6])
def test_two_parallel_axes_are_refused(scale: float) -> None:
    affine = np.diag((scale, scale, scale, 1.0))
    affine[:3, 1] = affine[:3, 0] * 3 + (0, 1e-8 * scale, 0)
    with pytest.raises(GeometryError, match="singular"):
        Geometry((2, 2, 2), affine)


def test_grids_are_equal_by_value_and_usable_as_keys() -> None:
    a, b = Geometry((4, 5, 6), ODD), Geometry((4, 5, 6), ODD.copy())
    assert a == b
    assert hash(a) == hash(b)
    moved = ODD.copy()
    moved[0, 3] += 1e-9
    assert len({a, b, Geometry((4, 5, 6), moved), Geometry((4, 5, 7), ODD)}) == 3
    assert a != "a grid"


def test_values_cannot_be_changed_from_outside() -> None:
    affine, array = ODD.copy(), np.zeros((4, 5, 6))
    volume = Volume(array, Geometry((4, 5, 6), affine), meta={"modality": "CT"})
    affine[0, 3] = 99
    assert volume.geometry.affine[0, 3] == 5
    for frozen in (volume.array, volume.geometry.affine):
        with pytest.raises(ValueError, match="read-only"):
            frozen[..., 0] = 1
    with pytest.raises(TypeError):
        volume.meta["modality"] = "MR"  # type: ignore[index]
    with pytest.raises(AttributeError):
        volume.kind = "labels"  # type: ignore[misc]
    array[0, 0, 0] = 1  # the caller's own array stays the caller's


def test_one_channel_may_leave_out_its_axis() -> None:
    grid = Geometry((4, 5, 6), ODD)
    assert Volume(np.zeros((4, 5, 6)), grid).array.shape == (1, 4, 5, 6)
    assert Volume(np.zeros((3, 4, 5, 6)), grid).channels == 3


@pytest.mark.parametrize("shape", [(5, 4, 6), (2, 4, 5), (4, 5), (1, 1, 4, 5, 6)])
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        Volume(np.zeros(shape), Geometry((4, 5, 6), ODD))


def test_replace_copies_and_checks_again() -> None:
    volume = Volume(np.zeros((4, 5, 6)), Geometry((4, 5, 6), ODD), meta={"modality": "CT"})
    mask = volume.replace(array=np.ones((4, 5, 6), np.uint8), kind="labels")
    assert (mask.kind, mask.geometry, mask.meta) == ("labels", volume.geometry, {"modality": "CT"})
    assert volume.kind == "image"
    with pytest.raises(GeometryError):
        volume.replace(array=np.zeros((1, 1, 1)))


def test_a_volume_travels_to_another_process() -> None:
    volume = Volume(np.arange(120).reshape(4, 5, 6), Geometry((4, 5, 6), ODD), "labels", {"notes": ("a",)})
    back = pickle.loads(pickle.dumps(volume))
    assert np.array_equal(back.array, volume.array)
    assert (back.geometry, back.kind, back.meta) == (volume.geometry, "labels", {"notes": ("a",)})
    assert not back.array.flags.writeable
    assert not back.geometry.affine.flags.writeable


def test_a_volume_says_what_it_is() -> None:
    text = repr(Volume(np.zeros((2, 4, 5, 6), np.float32), Geometry((4, 5, 6), ODD)))
    assert text == "Volume(image, 2 channels of float32, Geometry(4x5x6, 1 x 2 x 3 mm, ALS))"


def picture(volume: Volume) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", volume._repr_html_())
    assert data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def test_a_notebook_shows_three_planes_in_true_proportions() -> None:
    shape, spacing = (20, 30, 10), (1.0, 1.0, 3.0)
    grid = Geometry(shape, np.diag((*spacing, 1)))
    pixels = picture(Volume(np.random.default_rng(0).random(shape), grid))
    # Height is 240: axial 20 x 30 mm, coronal 20 x 30 mm, sagittal 30 x 30 mm, and two gaps of 4 pixels.
    assert pixels.shape == (240, 160 + 160 + 240 + 8, 3)
    assert np.ptp(pixels[..., 0]) > 200


def test_a_notebook_shows_masks_in_colour_and_flat_images_alone() -> None:
    mask = np.zeros((20, 30, 10), np.uint8)
    mask[5:15, 5:15, 2:8] = 1
    pixels = picture(Volume(mask, Geometry(mask.shape, np.eye(4)), "labels")).astype(int)
    assert (np.ptp(pixels, axis=2) > 50).any()
    assert picture(Volume(np.ones((30, 20, 1)), Geometry((30, 20, 1), np.eye(4)))).shape == (240, 360, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_notebook_survives_values_that_are_not_finite(value: float) -> None:
    array = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    array[0, 0, 0] = value
    assert picture(Volume(array, Geometry((6, 7, 8), np.eye(4)))).shape[0] == 240


def test_a_flat_image_is_shown_with_its_first_row_on_top() -> None:
    array = np.zeros((30, 20, 1), np.uint8)
    array[:, :5] = 255  # J counts rows from the top of a plain image
    pixels = picture(Volume(array, Geometry((30, 20, 1), np.diag((-1.0, -1.0, 1.0, 1.0)))))
    assert pixels[:50].mean() > pixels[-50:].mean()
