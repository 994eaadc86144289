"""Masks by hand: what is mended, with which numbers, and what is left to a person."""

import numpy as np
import pytest

from medseg import geometry as geo
from medseg.data import mask_repairs
from medseg.errors import DataError, GeometryError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

OBLIQUE = np.array([[0.8, 0.1, 0.0, -12], [-0.1, 0.9, 0.3, 7], [0.05, -0.2, 2.4, 30], [0, 0, 0, 1]])
IMAGE = Geometry((7, 6, 5), OBLIQUE)


def mask(geometry: Geometry = IMAGE, **meta: int) -> Volume:
    array = np.zeros(geometry.shape, np.uint8)
    array[2:5, 2:4, 1:4] = 1
    array[2, 2, 2] = 7
    return Volume(array, geometry, "labels", meta)


def moved(steps: tuple[float, ...], shape: tuple[int, int, int] = (7, 6, 5), scale: float = 1.0) -> Geometry:
    """A grid whose first voxel lies at an index of the image's."""
    affine = OBLIQUE.copy()
    affine[:3, 3] = IMAGE.to_world(steps)
    affine[:3, :3] *= scale
    return Geometry(shape, affine)


def test_nothing_is_done_to_a_mask_that_lies_on_its_image() -> None:
    same = mask()
    assert mask_repairs.onto(same, IMAGE) == (same, "")
    assert mask_repairs.as_values(same) == (same, "")
    assert mask_repairs.recoded(same, {1: 1}) == (same, "")
    assert mask_repairs.whole(same) == ""


def test_a_drift_below_a_voxel_takes_the_images_grid() -> None:
    found, said = mask_repairs.onto(mask(moved((0, 0, 0.8))), IMAGE)
    assert found.geometry == IMAGE
    assert np.array_equal(found.array, mask().array)
    assert "1.93 mm off (origin differs along k) (0.8 voxels)" in said
    with pytest.raises(GeometryError, match=r"1\.2 voxels, too far for a drift"):
        mask_repairs.onto(mask(moved((0, 1.2, 0))), IMAGE)


@pytest.mark.parametrize("meta", [{"sform_code": 0, "qform_code": 0}, {"sform_code": 2, "qform_code": 0}])
def test_a_header_that_tells_no_place_takes_the_images_grid(meta: dict[str, int]) -> None:
    affine = np.eye(4) if meta["sform_code"] else np.diag((-2.0, 2, 2, 1))
    found, said = mask_repairs.onto(mask(Geometry((7, 6, 5), affine), **meta), IMAGE)
    assert found.geometry == IMAGE
    assert np.array_equal(found.array, mask().array)
    assert "its header tells no place" in said
    with pytest.raises(GeometryError, match="too far"):
        mask_repairs.onto(mask(Geometry((7, 6, 5), np.diag((2.0, 2, 2, 1))), **meta | {"sform_code": 1}), IMAGE)


@pytest.mark.parametrize("start", [(0, 0, 0), (-1, 0, 0), (1, 1, 0)])
def test_whole_voxels_are_cut_or_filled_by_position(start: tuple[int, int, int]) -> None:
    other = moved(start, (6, 5, 6))
    found, said = mask_repairs.onto(mask(other), IMAGE)
    assert found.geometry == IMAGE
    for value in (1, 7):
        at = np.argwhere(mask(other).array[0] == value) + start
        assert np.array_equal(np.argwhere(found.array[0] == value), at)
    assert (
        "6x5x6 voxels instead of 7x6x5: cut or filled with background by position; all 18 labelled voxels kept" in said
    )


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "SAL"])
def test_a_mask_on_other_axes_is_turned_by_position(axcodes: str) -> None:
    found, said = mask_repairs.onto(geo.reorient(mask(), axcodes), IMAGE)
    assert found.geometry == IMAGE
    assert np.array_equal(found.array, mask().array)
    assert "turned by position; all 18 labelled voxels kept" in said


def test_labels_outside_the_image_are_not_cut() -> None:
    with pytest.raises(GeometryError, match="6 labelled voxels lie outside"):
        mask_repairs.onto(mask(moved((-3, 0, 0), (8, 6, 5))), IMAGE)


def test_one_voxel_more_over_the_same_extent_is_resampled_with_numbers() -> None:
    finer = Geometry((8, 6, 5), OBLIQUE @ np.array([[7 / 8, 0, 0, -1 / 16], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    found, said = mask_repairs.onto(mask(finer), IMAGE)
    assert found.geometry == IMAGE
    assert set(np.unique(found.array)) == {0, 1, 7}
    assert (
        "8x6x5 voxels instead of 7x6x5: nearest voxels of its own grid taken (voxels of each label: 1: 17 to " in said
    )
    with pytest.raises(GeometryError, match="not over the same extent"):
        mask_repairs.onto(mask(moved((0, 0, 0), (8, 6, 5), 0.6)), IMAGE)


def test_pictures_in_three_channels_become_numbers() -> None:
    pixels = np.zeros((4, 7, 6, 5), np.uint8)
    pixels[:, 1, 1, 1], pixels[:, 2, 2, 2], pixels[:, 3, 3, 3] = (255, 0, 0, 255), (9, 9, 9, 255), (0, 255, 0, 0)
    found, said = mask_repairs.as_values(Volume(pixels, IMAGE, "labels"))
    assert said
    assert [int(found.array[0, n, n, n]) for n in (1, 2, 3)] == [0x1FF0000, 9, 0]
    with pytest.raises(DataError, match="3 channels, expected one"):
        mask_repairs.as_values(Volume(pixels[:3] > 0, IMAGE, "labels"))
    overlapping = Volume((pixels[:3] > 0).astype(np.uint8), IMAGE, "labels")
    assert mask_repairs.as_values(overlapping, (1, 3)) == (overlapping, "")


@pytest.mark.parametrize(
    ("values", "declared", "expected"),
    [
        ({255}, None, {255: 1}),
        ({1, 255}, None, {255: 1}),
        ({1, 2, 255}, None, {}),
        ({1, 2}, None, {}),
        ({255, 0x1FF0000, 0x10000FF}, None, {255: 1, 0x10000FF: 2, 0x1FF0000: 3}),
        ({255}, {"a": 5}, {255: 5}),
        ({1, 255}, {"a": 1, "b": 2}, {}),
        ({0x1FF0000}, {"a": "#ff0000"}, {}),
    ],
)
def test_numbers_of_pictures(values: set[int], declared: dict[str, int] | None, expected: dict[int, int]) -> None:
    found = mask_repairs.table(values, Labels.of(declared) if declared else None)
    assert {value: number for value, number in found.items() if value in values} == expected


def test_recoding_counts_voxels() -> None:
    found, said = mask_repairs.recoded(mask(), {1: 7, 7: 1})
    assert (found.array == 1).sum() == 1
    assert (found.array == 7).sum() == 17
    assert said == "values of a picture: 1 becomes 7 (17 voxels), 7 becomes 1 (1 voxel)"
